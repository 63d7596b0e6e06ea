"""The commands for the keys of the service: key create, list, revoke."""

from __future__ import annotations

import sys

import click

from astound.commands.options import Session, echo_err, record_format
from astound.output.keys import write_keys
from engine.records import SCOPES


@click.group(epilog="Example: astound key create --scope query --note kitchen")
def key() -> None:
    """Create, list and revoke the keys of the service."""


@key.command(epilog="Example: KEY=$(astound key create --scope query)")
@click.option(
    "--scope", type=click.Choice(SCOPES), required=True,
    help="What it allows; each scope includes those before it.",
)  # fmt: skip
@click.option("--note", metavar="TEXT", help="Who has it.")
@click.pass_obj
def create(session: Session, scope: str, note: str | None) -> None:
    """Create a key and print it: the only time that it is shown."""
    with session.open() as catalog:
        made, secret = catalog.keys.create(scope, note)
    click.echo(secret)
    echo_err(f"key {made.id} created; it is not shown again")


@key.command("list", epilog="Example: astound key list")
@record_format
@click.pass_obj
def list_keys(session: Session, form: str) -> None:
    """List all keys, without their secrets."""
    with session.open() as catalog:
        write_keys(catalog.keys.all(), form, sys.stdout)


@key.command(epilog="Example: astound key revoke 3")
@click.argument("ids", nargs=-1, required=True, type=int, metavar="ID...")
@click.pass_obj
def revoke(session: Session, ids: tuple[int, ...]) -> None:
    """Revoke keys; they are refused from now on. If one does not exist, none is revoked."""
    with session.open() as catalog:
        catalog.keys.revoke(ids)
        if not catalog.keys.exist():
            echo_err("no key is left: a service at 127.0.0.1 answers this machine without one")
