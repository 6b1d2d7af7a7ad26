"""click's commands, made from the table in `options`; loaded for help, errors of use, and all but a plain render."""

import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from secretweave import __version__, cli, options
from secretweave.options import Option, Request


class _Command(click.Group):
    """A group whose default command is `render`: a post-renderer is started without arguments."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands:
            args = ["render", *args]
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0].startswith("-") and args[0] not in {"--help", "-h", "--version"}:
            args = ["render", *args]
        return super().parse_args(ctx, args)


def main() -> NoReturn:
    """Runs the command of sys.argv and exits."""
    try:
        code = command.main(prog_name="secretweave", standalone_mode=False)
    except click.UsageError as error:
        # click would tell stderr alone, and Helm 4 drops that.
        code = cli.misuse(error.format_message())
    sys.exit(code)


@click.group(
    cls=_Command,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Without a command: render, stdin to stdout. Every option has an environment name, SECRETWEAVE_<NAME>.",
)
@click.version_option(__version__, prog_name="secretweave", message="%(prog)s %(version)s")
def command() -> None:
    """Replaces secret references in rendered Kubernetes manifests with Secrets from your stores."""


def _add(
    name: str,
    work: "cli.Work",
    table: Sequence[Option],
    text: str,
    *,
    files: bool = True,
    group: click.Group | None = None,
    argument: str = "",
) -> None:
    """Adds a command; one of a group reads no files, but may have the one *argument*."""

    def invoke(files: tuple[str, ...] = (), **given: Any) -> None:
        request = options.from_environment(table, os.environ)
        for option in table:
            if value := given[option.field]:
                # click gives a tuple of what was given several times.
                request[option.field] = option.read(",".join(value)) if option.many else value
        sys.exit(cli.run(Request(name, files, **request), work))

    parameters: list[click.Parameter] = []
    if files and group is None:
        parameters.append(click.Argument(["files"], nargs=-1, metavar="[FILE]..."))
    if argument:
        parameters.append(click.Argument(["files"], metavar=argument, callback=lambda _context, _parameter, it: (it,)))
    for option in table:
        environ = f"  [env: {', '.join(option.environ)}]"
        parameters.append(
            click.Option(
                [f"--{option.name}"],
                is_flag=option.flag or None,
                multiple=option.many,
                help=option.help + environ,
                metavar=option.metavar or None,
                type=click.Choice(option.choices) if option.choices else None,
            )
        )
    (group or command).add_command(click.Command(name, callback=invoke, params=parameters, help=text))


_add(
    "render",
    cli.render,
    options.RENDER,
    "Write the manifests with every reference woven; nothing at all if one cannot be. "
    "FILE may be a folder (its .yaml, .yml and .json files) or `-` for stdin.",
)
_add("check", cli.check, options.CHECK, "Judge references, policy and configuration; contact no store.")
_add("plan", cli.plan, options.PLAN, "List what would be read and where it would go; contact no store.")

_add(
    "doctor",
    cli.examine,
    options.DOCTOR,
    "Look over configuration, stores and programs (in Argo CD's Pod mounts and daemon too) and say what to mend.",
    files=False,
)


@command.group()
def argocd() -> None:
    """The config-management plugin of Argo CD, which calls these itself; and its daemon."""


_add(
    "generate",
    cli.generate,
    options.ARGOCD,
    "Render the Application's source (Helm, Kustomize or plain files) and write it woven.",
    group=argocd,
)
_add("init", cli.prepare, options.ARGOCD, "Fetch what the source depends on, where that is allowed.", group=argocd)
_add("parameters", cli.parameters, options.ARGOCD, "Print what the Application may choose, as JSON.", group=argocd)
_add(
    "serve",
    cli.serve,
    options.ARGOCD,
    "Serve `generate` at the socket of SECRETWEAVE_SOCKET, with stores that stay open; log lines of JSON on stderr.",
    group=argocd,
)
_add("probe", cli.probe, options.ARGOCD, "Exit with 0 if the daemon answers: for a probe of Kubernetes.", group=argocd)


@command.group()
def flux() -> None:
    """What Flux applies: artifacts with every reference woven, and Secrets that are encrypted."""


_add(
    "push",
    cli.push,
    options.PUSH,
    "Render a folder, weave it, encrypt its Secrets and push it as an artifact that an OCIRepository of Flux takes. "
    "What the tag names is the previous one; where nothing changed, nothing is pushed. Prints "
    "HOST/REPO@DIGEST.",
    group=flux,
    argument="oci://HOST/REPO:TAG",
)
_add(
    "controller",
    cli.control,
    options.CONTROLLER,
    "Look after the SecretWeaves of a cluster: render, weave and encrypt their sources, and serve what comes of it as "
    "ExternalArtifacts; log lines of JSON on stderr.",
    files=False,
    group=flux,
)


@command.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell; put it where that shell looks, or `source` it."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(command, {}, "secretweave", "_SECRETWEAVE_COMPLETE").source())
