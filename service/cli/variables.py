"""Name environment variables that look like options of a command and are none."""

import difflib
import re
from collections.abc import Mapping
from typing import Any

import typer

# Kubernetes sets these for a Service whose name begins like the prefix.
_SERVICE_LINK = re.compile(r"(.+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")


def check_variables(context: typer.Context, environment: Mapping[str, str]) -> None:
    """Raise BadParameter if a variable begins with the command's prefix and is none of its options."""
    prefix = f"{context.auto_envvar_prefix}_"
    parameters: Any = context.command.params
    variables = {each.name.upper(): each.envvar or f"{prefix}{each.name.upper()}" for each in parameters}
    unknown = [
        name
        for name in sorted(environment)
        if name.startswith(prefix)
        and name not in variables.values()
        and not _SERVICE_LINK.fullmatch(name.removeprefix(prefix))
    ]
    if unknown:
        like = difflib.get_close_matches(unknown[0].removeprefix(prefix), sorted(variables), 1)
        remedy = f"did you mean {variables[like[0]]}?" if like else "see `whatwhere serve --help` for the options"
        raise typer.BadParameter(f"{unknown[0]} is in the environment, and there is no such option: {remedy}")
