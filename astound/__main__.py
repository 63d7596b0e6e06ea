"""The command line as `python -m astound`, for `torchrun` and wherever the script is not there."""

from astound.commands.main import main

if __name__ == "__main__":
    main()
