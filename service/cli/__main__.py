"""`python -m whatwhere.service.cli` is `whatwhere`."""

from whatwhere.service.cli import main

main()
