"""Who may call a server: `whatwhere token create`, `list`, `revoke`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from whatwhere.service.cli.app import app, messages, new_table, out, print_json
from whatwhere.service.cli.options import AsJson
from whatwhere.service.security.tokens import Scope, create_token, read_tokens, revoke_token

TokensFile = Annotated[Path, typer.Option("--file", help="The file of tokens, in JSON.", show_default=False)]
Name = Annotated[str, typer.Argument(help="Whose it is: letters, digits, dots, dashes and underscores, at most 64.")]

tokens = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
app.add_typer(tokens, name="token")


@tokens.callback()
def _tokens() -> None:
    """Say who may call a server: each caller has a secret token, which can be revoked.

    A server that was started with `whatwhere serve --tokens FILE` answers only calls that carry
    `authorization: Bearer TOKEN`. It looks at the file by itself: what is created or revoked counts within a second,
    without a restart. The file holds hashes alone: who reads it cannot call. Give every caller a token of its own.
    """


@tokens.command()
def create(
    name: Name,
    file: TokensFile,
    scope: Annotated[
        list[Scope] | None,
        typer.Option(
            help="What it allows, once for each: search (ask, and see what there is), admin (run the server). Neither "
            "includes the other.",
            show_default="search",
        ),
    ] = None,
    expires: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            metavar="YYYY-MM-DD",
            help="Refuse it from the beginning of this day (UTC) on; without it, only once it is revoked.",
        ),
    ] = None,
) -> None:
    """Create a token and print it, this once: only its hash is kept.

    The file is made when it is absent, and may be read and written by its owner alone. A name is given once: to
    replace a token, create one of another name, hand it over, then revoke the old.

    Example: `whatwhere token create web --file tokens.json --expires 2027-01-31 > web.token`
    """
    expires_at = None if expires is None else expires.replace(tzinfo=UTC)
    secret = create_token(file, name, scope or [Scope.SEARCH], expires_at)
    print(secret)
    messages.print(f"{file}: token {name} is created; it is shown only this once: keep it safe", soft_wrap=True)


@tokens.command("list")
def list_(file: TokensFile, as_json: AsJson = False) -> None:
    """List the tokens of a file: names, scopes and times, never what would let anybody in.

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
    table = new_table("name", "scopes", "created", "expires")
    for token in listed:
        expires = "never" if token.expires_at is None else _shown(token.expires_at)
        table.add_row(token.name, ", ".join(sorted(token.scopes)), _shown(token.created_at), expires)
    out.print(table)


@tokens.command()
def revoke(name: Name, file: TokensFile) -> None:
    """Take a token back: servers that use the file refuse it within a second, without a restart.

    Requests that are being answered end undisturbed. The name is free again.

    Example: `whatwhere token revoke web --file tokens.json`
    """
    revoke_token(file, name)
    out.print(f"{file}: token {name} is revoked", soft_wrap=True)


def _shown(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
