"""`python -m growlm` is the `growlm` command."""

from growlm.cli.main import main

if __name__ == "__main__":
    main()
