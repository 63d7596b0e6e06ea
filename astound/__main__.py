"""Run the command line as ``python -m astound``, which ``torchrun`` needs."""

from astound.commands.main import main

if __name__ == "__main__":
    main()
