"""`python -m rpcfw`: the command line, where its script is not on the PATH."""

from rpcfw.cli.main import main

if __name__ == "__main__":
    main()
