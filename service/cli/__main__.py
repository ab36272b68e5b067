"""`python -m service.cli` is `whatwhere`."""

from service.cli import main

main()
