"""Manage bearer tokens: `whatwhere token create`, `list`, `revoke`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from whatwhere.service.cli.app import app, messages, new_app, out, print_json
from whatwhere.service.cli.options import AsJson
from whatwhere.service.cli.tables import print_table
from whatwhere.service.security.tokens import Scope, create_token, read_tokens, revoke_token

TokensFile = Annotated[Path, typer.Option("--file", help="Token file (JSON).", show_default=False)]
Name = Annotated[
    str, typer.Argument(help="Name of the token: letters, digits, dots, dashes and underscores, at most 64.")
]

tokens = new_app()
app.add_typer(tokens, name="token")


@tokens.callback()
def _tokens() -> None:
    """Manage the bearer tokens that a server accepts.

    A server started with `whatwhere serve --tokens FILE` answers only calls with `authorization: Bearer TOKEN`. It
    follows the file: a created or revoked token takes effect within a second, without a restart. The file holds only
    hashes, so reading it gives no access. Give each caller its own token.
    """


@tokens.command()
def create(
    name: Name,
    file: TokensFile,
    scope: Annotated[
        list[Scope] | None,
        typer.Option(
            help="Scope, may be repeated: search (queries and listings), admin (operating the server). Neither "
            "includes the other.",
            show_default="search",
        ),
    ] = None,
    expires: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            metavar="YYYY-MM-DD",
            help="First day (UTC) on which the token is refused. Default: it never expires.",
        ),
    ] = None,
) -> None:
    """Create a token and print it. It is shown only once: the file keeps its hash.

    The file is created if it is missing, readable and writable by its owner only. Names are unique: to replace a token,
    create one with another name, deploy it, then revoke the old one.

    Example: `whatwhere token create web --file tokens.json --expires 2027-01-31 > web.token`
    """
    expires_at = None if expires is None else expires.replace(tzinfo=UTC)
    secret = create_token(file, name, scope or [Scope.SEARCH], expires_at)
    print(secret)
    messages.print(f"{file}: token {name} is created; it is shown only once: keep it safe", soft_wrap=True)


@tokens.command("list")
def list_(file: TokensFile, as_json: AsJson = False) -> None:
    """List the tokens of a file: names, scopes and times, never secrets.

    Example: `whatwhere token list --file tokens.json`
    """
    listed = read_tokens(file)
    if as_json:
        print_json(
            [
                {
                    "name": token.name,
                    "scopes": sorted(token.scopes),
                    "created_at": token.created_at.isoformat(),
                    "expires_at": None if token.expires_at is None else token.expires_at.isoformat(),
                }
                for token in listed
            ]
        )
        return
    rows = [
        (
            token.name,
            ", ".join(sorted(token.scopes)),
            _shown(token.created_at),
            "never" if token.expires_at is None else _shown(token.expires_at),
        )
        for token in listed
    ]
    print_table(("name", "scopes", "created", "expires"), rows)


@tokens.command()
def revoke(name: Name, file: TokensFile) -> None:
    """Revoke a token. Servers that use the file refuse it within a second, without a restart.

    Requests in flight finish. The name can be used again.

    Example: `whatwhere token revoke web --file tokens.json`
    """
    revoke_token(file, name)
    out.print(f"{file}: token {name} is revoked", soft_wrap=True)


def _shown(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
