"""Amplify very quiet recordings, whose segments would be taken for silence."""

from __future__ import annotations

import math

QUIET = 2.0**-7
"""Peak below which a recording is amplified, -42 dB of full scale."""

LEAST_FINE = 2.0**-20
"""Peak below which a recording of more than 16 bits is noise of the converter."""

_LEAST, _AMPLIFIED = 2.0**-12, 2.0**-2


def quiet_gain(peak: float, *, is_fine: bool) -> float:
    """Find how much a recording is amplified.

    Fingerprints do not depend on the level, but a segment below an absolute level is silence. The
    gain is one power of two for the whole recording, so samples keep their bits.

    Parameters
    ----------
    peak : float
        Largest absolute sample.
    is_fine : bool
        Samples have more than 16 bits.

    Returns
    -------
    float
        1 unless the recording is very quiet, yet more than noise of its converter.
    """
    if not (LEAST_FINE if is_fine else _LEAST) <= peak < QUIET:
        return 1.0
    return float(2.0 ** math.floor(math.log2(_AMPLIFIED / peak)))
