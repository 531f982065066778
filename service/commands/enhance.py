"""`pix2dslr enhance`: files, folders, standard input."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Final

import typer

from service.codec import Format
from service.commands.batch import Batch, Options, Task
from service.commands.common import (
    CameraOption,
    ForceOption,
    FormatOption,
    JobsOption,
    MetadataOption,
    OverlapOption,
    QualityOption,
    StrengthOption,
    examples,
    explain,
    fail,
    file_sha256,
    model_file,
    settings_for,
    shown,
)
from service.commands.files import CantWrite, format_of, is_folder, size_of, target_name, write_whole
from service.commands.folder import Folder
from service.commands.ledger import FolderInUse, Ledger
from service.commands.watch import Watch, WatchFailed

STREAM: Final = Path("-")
"""Standard input as a source, standard output as a target."""

EXAMPLES: Final = examples(
    ("pix2dslr enhance photo.jpg -o better.jpg", "one photo"),
    ("pix2dslr enhance photos -o enhanced", "a folder and those in it; again, to go on or for new photos"),
    ("pix2dslr enhance photos -o enhanced --watch", "and every photo that comes, until Ctrl-C"),
    ("pix2dslr enhance *.png -o out --format webp", "several, in another format"),
    ("pix2dslr enhance - < photo.jpg > better.jpg", "in a pipe"),
)


def enhance(
    paths: Annotated[
        list[Path],
        # readable: one that can't be read is named like any other that fails, and the rest is done
        typer.Argument(
            metavar="PATH...",
            help="pictures, folders of them, or - for standard input",
            show_default=False,
            readable=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="folder for the answers, under the same names; for one picture a file, or -"),
    ] = None,
    camera: CameraOption = None,
    strength: StrengthOption = 1.0,
    overlap: OverlapOption = "balanced",
    format_: FormatOption = None,
    quality: QualityOption = 95,
    metadata: MetadataOption = "keep",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="go on with pictures that come or change")] = False,
    force: ForceOption = False,
    jobs: JobsOption = None,
) -> None:
    """Enhance files, whole folders, or standard input.

    A folder's tree is mirrored in the one that --out names. What an earlier run did with the same options is passed
    over, unless its picture has changed since: .pix2dslr.jsonl in that folder remembers size and time of both.
    Files that something else made are never replaced without --force.

    Exit code 0: all done; 1: some failed, each named on standard error, the rest done; 2: wrong usage; 130 and 143:
    interrupted, with no half-written file: run it again to go on.
    """
    settings = settings_for(camera)
    options = Options(settings.camera, strength, overlap, format_, quality, metadata)
    if STREAM in paths or out == STREAM or _names_a_file(paths, out):
        if watch:
            raise typer.BadParameter("only folders can be watched", param_hint="--watch")
        task, options = _single(paths, out, options, force=force)
        with Batch(settings, options) as batch:
            batch.expect([task])
            batch.run([task])
    else:
        folders = [path for path in paths if is_folder(path)]
        files = [path for path in paths if path not in folders]
        target = _folder_for(files, folders, out, format_)
        if watch and not folders:
            raise typer.BadParameter("there is no folder to watch", param_hint="--watch")
        with Batch(settings, options, jobs) as batch:
            _into_folder(batch, files, folders, target, force=force, watch=watch)
    raise typer.Exit(batch.finish())


def _names_a_file(paths: Sequence[Path], out: Path | None) -> bool:
    return out is not None and len(paths) == 1 and not is_folder(paths[0]) and _is_file_name(out)


def _is_file_name(out: Path) -> bool:
    return format_of(out) is not None and not is_folder(out)


def _single(paths: Sequence[Path], out: Path | None, options: Options, *, force: bool) -> tuple[Task, Options]:
    """Return the task of a single picture that goes from or to a stream or to a file, and its options."""
    if len(paths) > 1:
        raise typer.BadParameter("- stands for one picture, and there are more", param_hint="PATH...")
    (source,) = paths
    if is_folder(source):
        raise typer.BadParameter("a folder can't go to standard output", param_hint="--out")
    if source == STREAM and sys.stdin.isatty():
        raise typer.BadParameter("standard input is a terminal: redirect a picture to it", param_hint="PATH...")
    target = STREAM if out is None else out
    if target == STREAM:
        if sys.stdout.isatty():
            raise typer.BadParameter("standard output is a terminal: redirect it, or name a file", param_hint="--out")
        stream = _claim_stdout()
        return Task(str(source), *_reader(source), lambda data: _write_stream(stream, data)), options
    if not _is_file_name(target):
        raise typer.BadParameter("a picture from standard input needs the name of a file", param_hint="--out")
    named = format_of(target)
    if options.format not in (None, named):
        raise typer.BadParameter(f"{target.name} is no name for {options.format}", param_hint="--format")
    if source != STREAM and target.resolve() == source.resolve():
        raise typer.BadParameter("a file would be replaced by its enhanced version", param_hint="--out")
    if os.path.lexists(target) and not force:
        fail(f"{shown(target)} is there already: --force replaces it")
    task = Task(str(source), *_reader(source), lambda data: write_whole(target, data, replace=force))
    return task, replace(options, format=named)


def _reader(source: Path) -> tuple[int, Callable[[], bytes]]:
    """Return a source's size in bytes, and what reads it; standard input is read at once."""
    if source != STREAM:
        return size_of(source), source.read_bytes
    data = sys.stdin.buffer.read()
    return len(data), lambda: data


def _claim_stdout() -> int:
    """Return a descriptor of standard output that nothing else writes to: whatever a library prints goes to stderr."""
    sys.stdout.flush()
    stream = os.dup(1)
    os.dup2(2, 1)
    return stream


def _write_stream(stream: int, data: bytes) -> None:
    try:
        with os.fdopen(stream, "wb") as file:
            file.write(data)
    except OSError as error:
        raise CantWrite(Path("standard output"), error) from error


def _folder_for(files: Sequence[Path], folders: Sequence[Path], out: Path | None, format_: Format | None) -> Path:
    """Check what can be known before anything is made, and return the answers' folder with no link in its path."""
    if out is None:
        raise typer.BadParameter("name a folder for the answers", param_hint="--out")
    if not is_folder(out) and (os.path.lexists(out) or format_of(out) is not None):
        raise typer.BadParameter(f"{shown(out)} is no folder, which several pictures need", param_hint="--out")
    target = out.resolve()
    answers = {file.resolve(): target / target_name(Path(file.name), format_) for file in files}
    if len(set(answers.values())) < len(answers):
        raise typer.BadParameter("two files would get one name", param_hint="PATH...")
    replaced = answers.keys() & {answer.resolve() for answer in answers.values()}
    if replaced or (format_ is None and target in [folder.resolve() for folder in folders]):
        raise typer.BadParameter("a file would be replaced by its enhanced version", param_hint="--out")
    return target


def _into_folder(
    batch: Batch, files: Sequence[Path], folders: Sequence[Path], out: Path, *, force: bool, watch: bool
) -> None:
    model = model_file(batch.settings)
    try:
        made_how = {**asdict(batch.options), "model_sha256": file_sha256(model)}
    except OSError as error:
        fail(f"{model}: {explain(error)}")
    try:
        with ExitStack() as stack:
            folder = Folder(stack.enter_context(Ledger(out)), out, batch, made_how, force=force)
            # before the first look: what comes between them would be missed
            changes = stack.enter_context(Watch(folders)) if watch else None
            tasks = [*folder.from_files(files), *(task for root in folders for task in folder.from_folder(root))]
            batch.expect(tasks)
            if changes is not None:
                batch.run(chain(tasks, _coming(changes, folders, folder, batch)))
            elif tasks:  # with nothing to do, no generator is loaded
                batch.run(tasks)
    except FolderInUse:
        fail(f"another pix2dslr writes to {shown(out)}: wait for it, or name another folder")
    except WatchFailed as error:
        fail(f"the folders can't be watched: {error}")
    except OSError as error:
        fail(f"can't write to {shown(out)}: {explain(error)}")


def _coming(changes: Watch, folders: Sequence[Path], folder: Folder, batch: Batch) -> Iterator[Task | None]:
    """Yield a task for each picture that comes or changes; None where there is none for a moment."""
    if batch.display.on_terminal:
        batch.display.say(f"watching {', '.join(shown(each) for each in folders)}: Ctrl-C ends it")
    for path in changes.changed():
        tasks = [] if path is None else folder.from_change(path, folders)
        if tasks:
            batch.expect(tasks)
            yield from tasks
        else:
            yield None
