"""`python -m jaxdiv`: see `jaxdiv._selfcheck`."""

from jaxdiv._selfcheck.command import main

if __name__ == "__main__":
    raise SystemExit(main())
