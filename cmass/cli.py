"""The command line: one command per step, and the doors to what they make.

Nothing heavy is imported at the top, so that ``--help`` answers at once.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO, cast

import typer
from typer.core import TyperGroup

from cmass import __version__, interrupts
from cmass.errors import CmassError, InputError, ParameterError, WorkspaceError
from cmass.pipeline import STEPS, Step
from cmass.secrets import Redacting, printable, redact
from cmass.streams import Undisturbed

if TYPE_CHECKING:
    from cmass.params import Params
    from cmass.study.units import Unit
    from cmass.workspace import Workspace

# Before numpy, TensorFlow, MLflow or Prefect is imported: BLAS in one thread (see machines.threads),
# quiet, and no telemetry.
for _name, _value in {
    "OPENBLAS_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "GX_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}.items():
    os.environ.setdefault(_name, _value)

INTERRUPTED = 130
UNEXPECTED = 1

EXIT_CODES = (
    "Exit codes: 0 done; 1 unexpected error; 2 unusable input or command line; 3 parameters; "
    "4 remote source; 5 data folder (missing step, in use, disk full); "
    "6 Dask scheduler or worker; 7 data contract; 130 interrupted."
)


class _Commands(TyperGroup):
    """Commands whose errors say what is wrong, without the words of the library that found it."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            raise


app = typer.Typer(
    name="cmass",
    cls=_Commands,
    help="Galaxy cluster masses with calibrated posteriors, from redshifts and positions.",
    epilog=(
        "Example: [bold]cmass run[/bold] makes a released catalogue from the embedded survey.\n\n"
        + EXIT_CODES
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# ------------------------------------------------------------------------------ shared options

Profile = Annotated[
    Literal["smoke", "standard", "paper"] | None,
    typer.Option(help="Size of the run; by default the one in params.yaml (standard)."),
]
Survey = Annotated[
    Literal["embedded", "sdss"] | None,
    typer.Option(help="Survey that gets masses; by default the one in params.yaml (embedded)."),
]
Mirror = Annotated[
    Path | None,
    typer.Option(help="Folder that stands in for the network; implies --survey sdss."),
]
ParamsFile = Annotated[
    Path | None,
    typer.Option("--params", help="Parameter file; by default ./params.yaml, else the built-in."),
]
Data = Annotated[
    Path, typer.Option(envvar="CMASS_DATA", help="Data folder that holds every product.")
]
Force = Annotated[bool, typer.Option("--force", help="Run even what is up to date.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug messages.")]

Columns = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=COLUMN",
        help="Which column of your files holds NAME, as in ra=RAJ2000, where the guess that is "
        "shown is wrong; with a unit z=V\\[km/s] or ra=RA\\[hourangle]; clusters.ra or galaxies.ra "
        "for one file alone. Once per name.",
    ),
]

DATA = Path("data")


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Turn errors of `command` into a message and an exit code; ``--debug`` adds the traceback."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        debug = bool(kwargs.get("debug"))
        _set_up_logging(debug)
        try:
            with interrupts.noted():
                command(*args, **kwargs)
        except CmassError as error:
            raise _leave(str(error), error.exit_code, debug) from error
        except KeyboardInterrupt as error:
            raise _leave("interrupted", INTERRUPTED, debug) from error
        except BrokenPipeError as error:  # `cmass sql … | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from error
        except Exception as error:
            words = f"unexpected {type(error).__name__}: {error}"
            if not debug:
                words += "\nThis is a fault of cmass; --debug shows where."
            raise _leave(words, UNEXPECTED, debug) from error

    return run


def _leave(message: str, code: int, debug: bool) -> typer.Exit:
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    if debug:
        with console.capture() as trace:
            console.print_exception()
        sys.stderr.write(redact(trace.get()))
    words = printable(redact(message))
    console.print(Text.assemble(("error: ", "bold red"), words), soft_wrap=True)
    return typer.Exit(code)


def _set_up_logging(debug: bool) -> None:
    import logging

    from rich.console import Console
    from rich.logging import RichHandler

    terminal = sys.stderr.isatty()
    console = Console(stderr=True, width=None if terminal else 160)
    handler = RichHandler(
        console=console, show_path=debug, rich_tracebacks=debug, log_time_format="%H:%M:%S"
    )
    handler.addFilter(Redacting())
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler], force=True)
    logging.getLogger("cmass").setLevel(logging.DEBUG if debug else logging.INFO)
    if not debug:  # advice on tracing functions, to those who write them
        logging.getLogger("tensorflow").setLevel(logging.ERROR)


def _resolve(
    profile: str | None, survey: str | None, mirror: Path | None, params: Path | None, data: Path
) -> tuple[Workspace, Params]:
    """Parameters of the run and the folder it works in."""
    from cmass.params import load_params
    from cmass.workspace import Workspace

    if mirror is not None and survey == "embedded":
        raise ParameterError("--mirror serves --survey sdss; the embedded survey reads no mirror")
    if mirror is not None and not mirror.is_dir():
        raise InputError(
            "the mirror is no folder"
            if mirror.exists()
            else "there is no such folder to be a mirror",
            file=mirror,
            remedy="A mirror holds galwcat19/ and sdss/, as data/README.md says; without --mirror "
            "the sources are asked over the network",
        )
    values = load_params(
        params,
        profile,
        survey=survey or ("sdss" if mirror else None),
        mirror=None if mirror is None else str(mirror),
    )
    return Workspace(data, values.profile, values.survey), values


# --------------------------------------------------------------------------------------- steps


def _run_step(name: str, workspace: Workspace, params: Params, force: bool) -> None:
    from cmass.pipeline import run_step

    run_step(name, workspace, params, force=force)
    if name == "realism":
        _show_scores(workspace, params)
    if name == "judge":
        _show_decision(workspace)


def _show_scores(workspace: Workspace, params: Params) -> None:
    """Print how well the mocks look like the survey, statistic by statistic."""
    from cmass.figures.realism import score_rows
    from cmass.tables import read_table

    file = workspace.realism / "realism.parquet"
    scores = score_rows(read_table(file, "realism"), params.realism.agreement)
    names = ["statistic", "deviation, odd ids", "bins that agree", "even ids", "agrees"]
    cells = [(s.title, s.deviation, s.agree, s.even, s.verdict) for s in scores]
    _print_rows(names, [dict(zip(names, row, strict=True)) for row in cells], len(cells))
    typer.echo(f"Every bin: {file}")


def _show_decision(workspace: Workspace) -> None:
    """Print the gates of the last judgement."""
    from cmass.promotion.tags import reasons_of
    from cmass.tables import read_json

    decision = read_json(workspace.decision)
    rows = [
        {
            "gate": one["name"],
            "passed": "yes" if one["passed"] else "NO",
            "asked and found": one["words"],
        }
        for one in decision["gates"]
    ]
    _print_rows(["gate", "passed", "asked and found"], rows, len(rows))
    typer.echo(f"{decision['model']} {reasons_of(decision)}")


def _step_command(one: Step) -> Callable[..., None]:
    def command(
        profile: Profile = None,
        survey: Survey = None,
        mirror: Mirror = None,
        params: ParamsFile = None,
        data: Data = DATA,
        force: Force = False,
        debug: Debug = False,
    ) -> None:
        workspace, values = _resolve(profile, survey, mirror, params, data)
        _run_step(one.name, workspace, values, force)

    return command


def _evaluate_command() -> Callable[..., None]:
    def command(
        what: Annotated[
            Literal["mocks", "realism"],
            typer.Argument(
                help="mocks: how good the masses are; realism: do the mocks look like the survey?"
            ),
        ] = "mocks",
        profile: Profile = None,
        survey: Survey = None,
        mirror: Mirror = None,
        params: ParamsFile = None,
        data: Data = DATA,
        force: Force = False,
        debug: Debug = False,
    ) -> None:
        workspace, values = _resolve(profile, survey, mirror, params, data)
        _run_step("evaluate" if what == "mocks" else what, workspace, values, force)
        if what == "mocks":
            _draw_figures(workspace, values)

    return command


def _train_command() -> Callable[..., None]:
    def command(
        profile: Profile = None,
        survey: Survey = None,
        mirror: Mirror = None,
        params: ParamsFile = None,
        data: Data = DATA,
        force: Force = False,
        like: Annotated[
            tuple[Path, Path] | None,
            typer.Option(
                metavar="CLUSTERS GALAXIES",
                help="Make mocks as deep and as far as this survey, its tables as `cmass estimate` takes "
                "them, and train and calibrate a model for it. What was made is not made again.",
            ),
        ] = None,
        depth: Annotated[
            float | None,
            typer.Option(
                metavar="MAG",
                help="With --like: the survey's limit in apparent r, where neither magnitudes nor numbers "
                "of galaxies should tell it.",
            ),
        ] = None,
        column: Columns = None,
        out: Annotated[
            Path | None,
            typer.Option(
                help="With --like: folder of the model; by default models/like-NAME of the galaxies."
            ),
        ] = None,
        debug: Debug = False,
    ) -> None:
        if like is None:
            if depth is not None or column or out is not None:
                raise ParameterError("--depth, --column and --out go with --like CLUSTERS GALAXIES")
            workspace, values = _resolve(profile, survey, mirror, params, data)
            _run_step("train", workspace, values, force)
        else:
            if survey is not None or mirror is not None:
                raise ParameterError(
                    "--survey and --mirror do not go with --like, whose tables are the survey"
                )
            _train_like(like, depth, _column_map(column or []), out, profile, params, force)

    return command


def _train_like(
    files: tuple[Path, Path], depth: float | None, columns: dict[str, str], out: Path | None,
    profile: str | None, params: Path | None, force: bool,
) -> None:  # fmt: skip
    """Train a model for a survey, and say how good it is."""
    from cmass import pretrained
    from cmass.estimation import like, read_tables
    from cmass.params import load_params

    tables = read_tables(*files, columns)
    found = like.measure(
        tables, pretrained.load_bundle(), columns=columns, limit_mag=depth, files=files
    )
    values = like.parameters(found, load_params(params, profile))
    out = out or like.default_folder(files[1])
    typer.echo(
        f"{found.n_clusters} clusters at z {found.z[0]:.3f} to {found.z[1]:.3f}, galaxies to r = "
        f"{found.depth.limit_mag:.2f} +- {found.depth.error_mag:.2f} (from {found.depth.how}): mocks "
        f"at {values.mock.haloes.distance_min_mpc_h:g} to {values.window.distance_max_mpc_h:g} Mpc/h",
        err=True,
    )
    figures = like.train(found, values, out, force=force)
    typer.echo(
        f"Mocks of the evaluation set: scatter {figures['epsilon_scatter']:.3f} dex, coverage error at "
        f"most {figures['coverage_error_max']:.3f}\n"
        f"Model: {out} ({out / like.WORK} holds mocks and voxels and may go)\n"
        f"Next: cmass estimate {files[0]} {files[1]} --model {out} --out masses.parquet"
    )


def _draw_figures(workspace: Workspace, params: Params) -> None:
    """Draw what there is of the latest training, which may be no champion yet."""
    from cmass import figures
    from cmass.pipeline import workspace_lock

    trial = workspace.seen_as("trial")
    with workspace_lock(workspace):
        figures.run(trial, params)
    typer.echo(f"Figures: {trial.figures}")


#: Commands of steps that take more than the others do.
_COMMANDS = {"evaluate": _evaluate_command, "train": _train_command}
_EXAMPLES = {
    "train": "cmass train; cmass train --like clusters.csv galaxies.fits --out models/mine",
    "ingest": "cmass ingest --survey sdss --mirror ../shared/data",
    "evaluate": "cmass evaluate; cmass evaluate realism --survey sdss",
    "realism": "cmass realism --survey sdss",
}


@app.command(
    epilog=(
        "Examples: [bold]cmass run --profile smoke[/bold] (minutes, not for science); "
        "[bold]cmass run --survey sdss --mirror DIR[/bold] (masses of the real SDSS clusters).\n\n"
        "What is up to date is not made again; an interrupted run goes on where it stopped.\n\n"
        + EXIT_CODES
    )
)
@_guarded
def run(
    profile: Profile = None,
    survey: Survey = None,
    mirror: Mirror = None,
    params: ParamsFile = None,
    data: Data = DATA,
    force: Force = False,
    debug: Debug = False,
) -> None:
    """Run every step, to a released catalogue and its report."""
    from cmass.pipeline import run_all

    workspace, values = _resolve(profile, survey, mirror, params, data)
    run_all(workspace, values, force=force)
    _show_summary(workspace)


for _step in STEPS:
    _example = _EXAMPLES.get(_step.name, f"cmass {_step.name} --profile smoke")
    app.command(
        _step.name, help=_step.summary, epilog=f"Example: [bold]{_example}[/bold]\n\n{EXIT_CODES}"
    )(_guarded(_COMMANDS[_step.name]() if _step.name in _COMMANDS else _step_command(_step)))


@app.command(epilog=("Example: [bold]cmass models --profile paper[/bold]\n\n" + EXIT_CODES))
@_guarded
def models(
    profile: Profile = None, data: Data = DATA, params: ParamsFile = None, debug: Debug = False
) -> None:
    """List the trained models of a profile: versions, scores, verdicts, and the champion."""
    from cmass.promotion.judge import summaries
    from cmass.registry import Registry
    from cmass.secrets import address

    workspace, _ = _resolve(profile, None, None, params, data)
    rows = summaries(workspace)
    if not rows:
        registry = Registry(workspace)
        others = ", ".join(registry.names()) or "none"
        typer.echo(
            f"no {registry.name} is registered at {address(registry.uri)} (there: {others}): `cmass run` "
            "trains one, --profile asks for another",
            err=True,
        )
        return
    _print_rows(list(rows[0]), rows, len(rows))


@app.command(
    epilog=(
        'Example: [bold]cmass promote 3 --profile paper --reason "version 4 misses Coma"[/bold], '
        "then [bold]cmass run[/bold] publishes with it.\n\n" + EXIT_CODES
    )
)
@_guarded
def promote(
    version: Annotated[
        str, typer.Argument(help="Number of the version, as `cmass models` has it.")
    ],
    reason: Annotated[str, typer.Option(help="Why, for the registry and the release.")],
    profile: Profile = None,
    data: Data = DATA,
    params: ParamsFile = None,
    debug: Debug = False,
) -> None:
    """Make a version the champion by hand: a rollback, or a model taken as it is."""
    from cmass.promotion.champion import promote as crown
    from cmass.registry import model_name

    workspace, _ = _resolve(profile, None, None, params, data)
    before = crown(workspace, version, reason)
    was = "there was none" if before is None else f"it was version {before.number}"
    typer.echo(f"{model_name(workspace.profile)} version {version} is the champion ({was})")


def _show_summary(workspace: Workspace) -> None:
    """Print the headline numbers and where the release lies."""
    from rich.console import Console
    from rich.table import Table

    from cmass.headline import headline_numbers
    from cmass.workspace import SITE

    table = Table("number", "value", "error", "paper", title="Headline numbers")
    for number in headline_numbers(workspace.seen_as("champion")):
        table.add_row(*number.cells())
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    release = (workspace.releases / "latest").resolve()
    console.print(f"Release: {release}\nReport:  {release / 'report.html'}", soft_wrap=True)
    if (release / SITE).is_dir():
        console.print("Site:    open what `cmass serve` says", soft_wrap=True)


# ------------------------------------------------------------------------------------ versions


@app.command(epilog="Example: [bold]cmass releases[/bold]\n\n" + EXIT_CODES)
@_guarded
def releases(data: Data = DATA, debug: Debug = False) -> None:
    """List released versions: their model, and whether they are archived."""
    from cmass.versions.archive import listed

    rows = listed(data)
    if not rows:
        typer.echo("there is no release yet: `cmass run` makes one", err=True)
        return
    _print_rows(list(rows[0]), rows, len(rows))


@app.command(
    epilog=(
        "Example: [bold]CMASS_REMOTE=s3://bucket/cmass cmass archive[/bold] (any address that `dvc "
        "remote add` takes; a folder will do).\n\n" + EXIT_CODES
    )
)
@_guarded
def archive(
    version: Annotated[str, typer.Argument(help="A release in the data folder.")] = "latest",
    data: Data = DATA,
    debug: Debug = False,
) -> None:
    """Keep a release with all that it was made of, push it to the remote, and tag its commit."""
    from cmass.versions.archive import archive as keep

    typer.echo(f"{keep(data, version)} is archived")


@app.command(
    epilog=(
        "Example: [bold]cmass rebuild 2026.11.23-0a1b2c3d --check[/bold]\n\n"
        "The code is that of the version's tag, the packages are those installed now.\n\n"
        + EXIT_CODES
    )
)
@_guarded
def rebuild(
    version: Annotated[str, typer.Argument(help="An archived version (`cmass releases`).")],
    check: Annotated[
        bool, typer.Option("--check", help="Fail unless every Parquet file has the same bytes.")
    ] = False,
    train: Annotated[
        bool, typer.Option("--train", help="Make mocks and network anew as well, and compare.")
    ] = False,
    data: Data = DATA,
    debug: Debug = False,
) -> None:
    """Make an archived release again from its tag, and compare it with what was released."""
    from cmass.versions.rebuild import rebuild as make_again

    made = make_again(data, version, train=train)
    rows = [
        {"file": one.name, "released": one.released[:16], "rebuilt": (one.rebuilt or "missing")[:16],
         "same": "yes" if one.same else "NO"}
        for one in made.files
    ]  # fmt: skip
    _print_rows(list(rows[0]), rows, len(rows))
    typer.echo(f"Rebuilt: {made.folder}")
    for line in made.software:
        typer.echo(f"other software: {line}", err=True)
    if check and not made.same:
        differ = ", ".join(one.name for one in made.files if not one.same)
        raise WorkspaceError(f"{version} did not come out as it was released: {differ}")


# --------------------------------------------------------------------------------------- doors


@app.command(
    epilog=(
        "Examples: [bold]cmass estimate clusters.csv galaxies.parquet --out masses.fits[/bold]; "
        "[bold]cmass estimate c.fits g.vot --out m.ecsv --column ra=RAJ2000 "
        "--column dec=DEJ2000[/bold]; [bold]cmass estimate c.csv g.fits --out m.csv --recentre --plot "
        "pages[/bold]\n\n" + EXIT_CODES
    )
)
@_guarded
def estimate(
    clusters: Annotated[
        Path, typer.Argument(help="Clusters: cluster_id, ra, dec (deg, J2000), z.")
    ],
    galaxies: Annotated[
        Path,
        typer.Argument(
            help="Galaxies: ra, dec (deg, J2000), z. All of a survey as deep as the mocks (SDSS: r "
            "below 17.77) within 4 Mpc/h and 2200 km/s of each cluster, members or not: of members "
            "alone, of a thinned or cut window the masses come out too low, and not every such "
            "cluster is flagged."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Where to write: .parquet, .csv, .ecsv, .fits or .vot.")
    ],
    column: Columns = None,
    model: Annotated[
        Path | None, typer.Option(help="Folder of a model; by default the one that ships.")
    ] = None,
    recentre: Annotated[
        bool,
        typer.Option(
            help="Move each centre to the peak of the galaxies' density in phase space, as the mocks' "
            "observer does: for centres that are poorly known."
        ),
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for a page a cluster: sky, phase space and posterior (a third of a second each).",
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Estimate masses of your own clusters with the model that ships with cmass."""
    names = _column_map(column or [])
    from cmass.estimation import estimate_files

    made = estimate_files(
        clusters, galaxies, out, columns=names, model=model, recentred=recentre, plot=plot
    )
    _print_rows(
        list(_MASS_CELLS), [_mass_cells(row) for row in made.to_pylist()[:_MASSES_SHOWN]], 0
    )
    if made.num_rows > _MASSES_SHOWN:
        typer.echo(f"{_MASSES_SHOWN} of {made.num_rows} clusters shown; {out} has all", err=True)


#: Clusters that `estimate` shows on screen.
_MASSES_SHOWN = 12
_MASS_CELLS = ("cluster_id", "z", "galaxies", "log10 M200c [Msun/h]", "68 % from", "to", "flags")


def _mass_cells(row: dict[str, Any]) -> dict[str, Any]:
    """One line of the summary of `estimate`: the posterior median with its 68 % interval."""
    from cmass.columns import FLAGS

    mass, low, high = (row[f"log10_m200c_p{q}"] for q in (50, 16, 84))
    flags = ", ".join(one.name for one in FLAGS.values() if row["flag"] & one.value)
    cells = [
        row["cluster_id"], row["z"], row["n_galaxies"],
        *("" if m is None else f"{m:.2f}" for m in (mass, low, high)), flags,
    ]  # fmt: skip
    return dict(zip(_MASS_CELLS, cells, strict=True))


_NAMES = ("cluster_id", "ra", "dec", "z", "r_mag")


def _column_map(options: list[str]) -> dict[str, str]:
    """Parse ``--column ra=RAJ2000`` into ``{"ra": "RAJ2000"}``."""
    names: dict[str, str] = {}
    for option in options:
        name, equals, theirs = option.partition("=")
        if not (name and equals and theirs):
            raise ParameterError(f"--column {option}: write it as NAME=COLUMN, as in ra=RAJ2000")
        table, _, ours = name.rpartition(".")
        if table not in ("", "clusters", "galaxies") or ours not in _NAMES:
            raise ParameterError(
                f"--column {option}: NAME is one of {', '.join(_NAMES)}, or that of one table, as "
                "clusters.ra or galaxies.ra"
                + (f". The other way round: --column {theirs}={name}" if theirs in _NAMES else "")
            )
        if name in names:
            raise ParameterError(f"--column {name} is given twice")
        names[name] = theirs
    return names


@app.command(
    epilog=(
        'Examples: [bold]cmass sql "SELECT count(*) FROM masses"[/bold]; '
        '[bold]cmass sql --format csv "SELECT cluster_id, separation_deg, log10_m200c_p50 '
        'FROM cone(195, 28, 180) LIMIT 5" > nearest.csv[/bold]; '
        '[bold]cmass sql --with mine=mine.csv "SELECT * FROM mine"[/bold]\n\n'
        "docs/queries.md has more. The statement only reads the release and your own tables: no other "
        "file, no network, no extension.\n\n" + EXIT_CODES
    )
)
@_guarded
def sql(
    query: Annotated[str, typer.Argument(help="One SQL statement that reads.")],
    format: Annotated[
        Literal["table", "csv", "json"], typer.Option(help="How to print the rows.")
    ] = "table",
    release: Annotated[
        Path | None,
        typer.Option(
            help="A release: its folder, or its version in the data folder; by default the latest."
        ),
    ] = None,
    own: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="NAME=FILE",
            help="Table of your own (Parquet, CSV, ECSV, FITS, VOTable) under a name for the query; "
            "repeatable.",
        ),
    ] = None,
    data: Data = DATA,
    debug: Debug = False,
) -> None:
    """Ask the released catalogue in SQL."""
    from cmass.publish import sql as door

    folder = door.find_release(data, release)
    if (words := door.check(folder)) is not None:
        typer.echo(f"warning: {words}", err=True)
    answer = door.query(folder, query, tables=door.own_tables(own or ()))
    if door.is_smoke(folder):
        typer.echo(f"{folder.resolve()} is of profile smoke: not for science", err=True)
    if format != "table":
        sys.stdout.write(door.render(answer, format))
        sys.stdout.flush()
        return
    _print_rows(answer.column_names, answer.slice(0, _ROWS_SHOWN).to_pylist(), answer.num_rows)


_ROWS_SHOWN = 200


def _print_rows(names: list[str], rows: list[dict[str, Any]], total: int) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    # Off a terminal nothing must be cut to a width that nobody chose.
    console = Console(width=None if sys.stdout.isatty() else 10_000)
    table = Table(*(escape(n) for n in names))
    for row in rows:
        table.add_row(*(escape(_cell(value)) for value in row.values()))
    console.print(table)
    if total > len(rows):
        typer.echo(f"{len(rows)} of {total} rows shown; --format csv gives all", err=True)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list) and len(value) > 4:
        return f"[{', '.join(_cell(v) for v in value[:3])}, … {len(value)} values]"
    return str(value)


Version = Annotated[
    str, typer.Option("--release", help="Version of a release, by default the last whole one.")
]


@app.command(
    epilog=(
        "Examples: [bold]cmass site && cmass serve[/bold]; [bold]cmass site --out public[/bold] makes a "
        "folder for any web server.\n\n" + EXIT_CODES
    )
)
@_guarded
def site(
    release: Version = "latest",
    out: Annotated[
        Path | None, typer.Option(help="New folder that gets a copy of release and site.")
    ] = None,
    console: Annotated[
        bool,
        typer.Option(help="With the SQL console; npm brings DuckDB for browsers the first time."),
    ] = True,
    data: Data = DATA,
    debug: Debug = False,
) -> None:
    """Make the web pages of a release, in its folder `site`; they work with no network."""
    from cmass.publish.release import check_sums, locked, version_folder
    from cmass.publish.site import browser, build, export

    folder = version_folder(data / "release", release)
    check_sums(folder)
    engine = browser.fetch() if console else None
    with locked(folder.parent):
        made = build(folder, console=engine)
        if out is not None:
            export(folder, out)
    typer.echo(f"Site: {made if out is None else out / made.name}/index.html")


@app.command(
    epilog="Example: [bold]cmass serve --port 8001[/bold], then open the address that it says.\n\n"
    + EXIT_CODES
)
@_guarded
def serve(
    release: Version = "latest",
    host: Annotated[
        str,
        typer.Option(help="Address to listen at; by default nobody but this machine reaches it."),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen at; 0 for any that is free.")
    ] = 8000,
    data: Data = DATA,
    debug: Debug = False,
) -> None:
    """Serve a release and its site to the browsers of this machine, until Ctrl-C."""
    from cmass.publish.release import version_folder
    from cmass.publish.site import serve as server

    folder = version_folder(data / "release", release)
    if not server.is_loopback(host):
        typer.echo(f"{host} is not this machine alone: others can read the release", err=True)
    server.serve(folder, host, port, lambda words: typer.echo(f"{folder.name} at {words}"))


@app.command(
    epilog=(
        "Examples: [bold]cmass diff 2026.11.23-0a1b2c3d latest[/bold]; "
        "[bold]cmass diff data/release/latest other/release --format csv > changes.csv[/bold]\n\n"
        + EXIT_CODES
    )
)
@_guarded
def diff(
    old: Annotated[str, typer.Argument(help="Earlier release: its version, or its folder.")],
    new: Annotated[
        str, typer.Argument(help="Later release: its version, latest, or its folder.")
    ] = "latest",
    format: Annotated[
        Literal["text", "csv", "json"],
        typer.Option(help="A summary, or a row for each cluster that differs."),
    ] = "text",
    data: Data = DATA,
    debug: Debug = False,
) -> None:
    """Say what differs between two releases: clusters added, lost, changed by more than 1 sigma."""
    from cmass.publish import changes
    from cmass.publish.release import check_sums, version_folder
    from cmass.publish.sql import render

    folders = [
        Path(name) if Path(name).is_dir() else version_folder(data / "release", name)
        for name in (old, new)
    ]
    for folder in folders:
        check_sums(folder)
    found = changes.between_folders(*folders)
    sys.stdout.write(found.markdown() if format == "text" else render(found.table, format))
    sys.stdout.flush()


@app.command(
    epilog=(
        "Example: [bold]cmass calibrate --survey sdss[/bold] (23 minutes on two cores; an interrupted "
        "one goes on where it stopped).\n\n" + EXIT_CODES
    )
)
@_guarded
def calibrate(
    profile: Profile = None,
    survey: Survey = None,
    params: ParamsFile = None,
    data: Data = DATA,
    write: Annotated[
        bool, typer.Option(help="Write values and errors into the parameter file.")
    ] = True,
    debug: Debug = False,
) -> None:
    """Fit the simulator's free parameters to the survey's even clusters."""
    from cmass import calibrate as calibration
    from cmass.pipeline import workspace_lock

    workspace, values = _resolve(profile, survey, None, params, data)
    file = params or Path("params.yaml")
    if write and not file.exists():
        raise ParameterError(f"{file}: no such file to write to; --no-write only reports")
    with workspace_lock(workspace):
        result = calibration.run(workspace, values, file if write else None)
    names = ["parameter", "before", "calibrated", "error", "from", "to"]
    rows = [
        dict(zip(names, (name, *(f"{value:.4g}" for value in values)), strict=True))
        for name, *values in result.rows()
    ]
    _print_rows(names, rows, len(rows))
    typer.echo(
        f"deviation of the even clusters: {result.deviation_start:.3f} before, "
        f"{result.deviation_best:.3f} after {100 * result.step:.0f} % of the way to the fit's optimum"
    )


# ------------------------------------------------------------------------------------- studies

study = typer.Typer(
    help="Study simulator and network: what ingredients and choices are worth. Hours, resumed.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "Example: [bold]cmass study ingredients --dry-run[/bold] says what it would do and for "
        "how long.\n\n" + EXIT_CODES
    ),
)
app.add_typer(study, name="study")

Seeds = Annotated[
    list[int] | None,
    typer.Option("--seed", help="Seed of mocks and network, once each; by default study.seeds."),
]
Only = Annotated[
    list[str] | None,
    typer.Option(help="Ingredient to switch off, once each; by default every one."),
]
Compare = Annotated[
    bool,
    typer.Option(
        "--compare-galweight",
        help="Compare with GalWeight's masses. For a real survey this is a look at the result "
        "that must not steer the simulator; looks are counted.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="List the work and how long it takes, and stop.")
]
Docs = Annotated[
    Path | None,
    typer.Option(help="Document that takes the table, between the markers of its name."),
]


def _study_epilog(name: str, more: str) -> str:
    return (
        f"Examples: [bold]cmass study {name} --dry-run[/bold]; [bold]cmass study {name} {more}"
        "[/bold]\n\nAn interrupted study goes on where it stopped; a finished network is not "
        "trained again.\n\n" + EXIT_CODES
    )


@study.command(epilog=_study_epilog("ingredients", "--survey sdss --docs docs/mocks.md"))
@_guarded
def ingredients(
    profile: Profile = None,
    survey: Survey = None,
    params: ParamsFile = None,
    data: Data = DATA,
    only: Only = None,
    seed: Seeds = None,
    compare_galweight: Compare = False,
    dry_run: DryRun = False,
    docs: Docs = None,
    debug: Debug = False,
) -> None:
    """Switch off one ingredient of the simulator at a time, and say what each was worth."""
    from cmass import study as studies
    from cmass.mock.ingredients import INGREDIENTS

    workspace, values = _resolve(profile, survey, None, params, data)
    seeds = seed or values.study.seeds
    units = studies.plan(only or list(INGREDIENTS), seeds, workspace, values)
    _check_docs("ingredients", docs)
    _show_plan(units, listed=dry_run)
    if dry_run:
        return
    result = studies.run_ingredients(
        workspace, values, only=only or (), seeds=seeds, compare_galweight=compare_galweight
    )
    _show_study("ingredients", result.markdown, docs)


@study.command(epilog=_study_epilog("nuisance", "--full --survey sdss"))
@_guarded
def nuisance(
    profile: Profile = None,
    survey: Survey = None,
    params: ParamsFile = None,
    data: Data = DATA,
    full: Annotated[
        bool,
        typer.Option("--full", help="Windows, voxels and epochs of the profile, not of the study."),
    ] = False,
    seed: Seeds = None,
    compare_galweight: Compare = False,
    dry_run: DryRun = False,
    docs: Docs = None,
    debug: Debug = False,
) -> None:
    """Train with and without nuisance parameters drawn per halo, and judge both on both."""
    from cmass import study as studies

    workspace, values = _resolve(profile, survey, None, params, data)
    seeds = seed or values.study.seeds
    units = studies.plan([studies.NUISANCE], seeds, workspace, values, full=full)
    _check_docs("nuisance", docs)
    _show_plan(units, listed=dry_run)
    if dry_run:
        return
    result = studies.run_nuisance(
        workspace, values, seeds=seeds, full=full, compare_galweight=compare_galweight
    )
    _show_study("nuisance", result.markdown, docs)


#: Studies beyond the ingredients (`cmass.study.STUDIES`), what each asks, and where its table may go.
_STUDIES = {
    "learning": "How the scatter falls with the number of training windows.",
    "leak": "What it is worth to judge a network on sight lines of haloes that it learned from.",
    "sensitivity": "Vary κ, window, flux limit, cosmology and distance, one at a time.",
    "ensemble": "How much of the error is the network's own.",
    "sightlines": "The floor set by the sight line alone: one halo, many sight lines.",
    "fibres": "What galaxies without a fibre do to the masses.",
    "priors": "Posteriors under the flat and the mass-function prior, each on its population.",
}


def _run_study(
    name: str, workspace: Workspace, params: Params, seeds: list[int], dry_run: bool,
    docs: Path | None,
) -> None:  # fmt: skip
    from cmass import study as studies

    one = studies.open_study(name)
    _check_docs(name, docs)
    if one.plan is not None:
        _show_plan(one.plan(workspace, params, seeds), listed=dry_run)
    elif one.work is not None:
        typer.echo(one.work(workspace, params), err=not dry_run)
    if dry_run:
        return
    result = studies.run_study(name, workspace, params, seeds=seeds)
    markdown = result.markdown
    if docs is not None and result.picture is not None:
        from cmass.study.documents import put_picture

        markdown += f"\n\n{put_picture(docs, name, result.picture, one.caption)}"
    _show_study(name, markdown, docs)


def _trained_study(name: str) -> Callable[..., None]:
    def command(
        profile: Profile = None,
        survey: Survey = None,
        params: ParamsFile = None,
        data: Data = DATA,
        seed: Seeds = None,
        dry_run: DryRun = False,
        docs: Docs = None,
        debug: Debug = False,
    ) -> None:
        workspace, values = _resolve(profile, survey, None, params, data)
        _run_study(name, workspace, values, list(seed or values.study.seeds), dry_run, docs)

    return command


def _study_of_the_run(name: str) -> Callable[..., None]:
    def command(
        profile: Profile = None,
        survey: Survey = None,
        params: ParamsFile = None,
        data: Data = DATA,
        dry_run: DryRun = False,
        docs: Docs = None,
        debug: Debug = False,
    ) -> None:
        workspace, values = _resolve(profile, survey, None, params, data)
        _run_study(name, workspace, values, [], dry_run, docs)

    return command


for _name, _words in _STUDIES.items():
    _of_the_run = _name in ("sightlines", "fibres", "priors")
    study.command(
        _name, help=_words, epilog=_study_epilog(_name, "--survey sdss --docs docs/science.md")
    )(_guarded(_study_of_the_run(_name) if _of_the_run else _trained_study(_name)))


@study.command(epilog=_study_epilog("rivals", "--seed 1 --seed 2 --seed 3 --docs docs/science.md"))
@_guarded
def rivals(
    profile: Profile = None,
    params: ParamsFile = None,
    data: Data = DATA,
    seed: Annotated[
        list[int] | None,
        typer.Option(
            "--seed",
            help="Seed of the fits, once each, from 1 (the run's own); by default 1, 2, 3.",
        ),
    ] = None,
    estimator: Annotated[
        list[str] | None,
        typer.Option("--estimator", help="Estimator, once each; by default every one there is."),
    ] = None,
    dry_run: DryRun = False,
    docs: Docs = None,
    debug: Debug = False,
) -> None:
    """Fit estimators with several seeds, and lay them side by side."""
    from cmass.study import rivals as studies

    workspace, values = _resolve(profile, None, None, params, data)
    _check_docs("rivals", docs)
    units = studies.study_units(workspace, values, seed or (), estimator or ())
    left = studies.to_do(units)
    for unit in units if dry_run else ():
        state = "to do" if unit in left else unit.lacks() or "made"
        typer.echo(f"{unit.words}: {state}")
    typer.echo(f"{len(left)} of {len(units)} to fit", err=not dry_run)
    if dry_run:
        return
    result = studies.run(workspace, values, seeds=seed or (), names=estimator or ())
    _show_study("rivals", result.markdown, docs)


def _show_plan(units: list[Unit], *, listed: bool) -> None:
    from cmass import study as studies

    left = [u for u in units if not u.is_made()]
    if listed:
        for unit in units:
            typer.echo(f"{'to do' if unit in left else 'made '}  {unit.words}")
    time = studies.in_words(studies.estimated_seconds(units))
    typer.echo(f"{len(left)} of {len(units)} networks to train: about {time}", err=not listed)


def _check_docs(name: str, docs: Path | None) -> None:
    """Say before the work, not after it, that its table has no place."""
    if docs is not None:
        from cmass.study.documents import around_markers

        around_markers(docs, f"study {name}")


def _show_study(name: str, markdown: str, docs: Path | None) -> None:
    typer.echo(markdown)
    if docs is not None:
        from cmass.study.documents import put_between_markers

        put_between_markers(docs, f"study {name}", markdown)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"cmass {__version__}")


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def _top(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the ``cmass`` command."""
    sys.stderr = cast("TextIO", Undisturbed(sys.stderr))
    try:
        app()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            # All is cleared up; Python would wait for threads that Ctrl-C may have left without an end.
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(INTERRUPTED)
        raise


if __name__ == "__main__":
    main()
