"""SLURM's queue, asked by its own commands; and what was submitted, remembered in files.

Conventions: below `<paths.runs>/slurm` lies for each script NAME its text, `NAME.sh`, and its
record, `NAME.json`: the cells of each task and the numbers of the jobs. The record is written
before the job is submitted, under the name that the queue shows, so that no kill can leave a job
that nobody knows. Whether a job has done its work is never asked here.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from datamodules.errors import UserError
from datamodules.files import write_text
from mirprobe.sweep.slurm import LOGS, Kind, Script

FOLDER = "slurm"  # below `paths.runs`
Word = Literal["queued", "running"]

# States of squeue in which a job has nodes; in all others that it shows, it waits for some.
_RUNNING = ("RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "STOPPED", "SUSPENDED")
_USUAL_ARRAY = 1001  # MaxArraySize where SLURM does not tell
_ANSWER_S = 60.0  # for SLURM's commands, which wait for a busy controller


@dataclass(frozen=True)
class Record:
    """What a script was submitted for.

    Attributes:
        name: of the script and its jobs.
        kind: of work.
        tasks: files of the cells of each task.
        jobs: numbers under which it was submitted, one after the other.
    """

    name: str
    kind: Kind
    tasks: tuple[tuple[str, ...], ...]
    jobs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """One line of the queue that is ours: a job, or a task of an array.

    Attributes:
        job: its number, such as `12` or `12_3`.
        word: whether it waits or runs.
        reason: SLURM's, why it waits.
        record: what it was submitted for.
        cells: files of its cells.
    """

    job: str
    word: Word
    reason: str
    record: Record
    cells: tuple[str, ...]


def has_slurm() -> bool:
    """Whether this machine can submit jobs."""
    return shutil.which("sbatch") is not None and shutil.which("squeue") is not None


# -- records ---------------------------------------------------------------------------------------


def write_record(folder: Path, script: Script, text: str, jobs: Sequence[str] = ()) -> None:
    """Remembers a script: its text and what it is for, with further jobs of it."""
    known = read_records(folder).get(script.name)
    before = known.jobs if known is not None else ()
    record = Record(script.name, script.kind, script.tasks, (*before, *jobs))

    (folder / LOGS).mkdir(parents=True, exist_ok=True)
    with (folder / f"{script.name}.sh").open("w", errors="surrogateescape") as file:
        file.write(text)
    write_text(folder / f"{script.name}.json", json.dumps(asdict(record), indent=1) + "\n")


def read_records(folder: Path) -> dict[str, Record]:
    """All records, by the names of their scripts.

    Raises:
        UserError: one of them is broken.
    """
    records = {}
    for path in sorted(folder.glob("*.json")):
        try:
            note = json.loads(path.read_text(encoding="utf-8"))
            record = _record(note)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} is no record of a job ({' '.join(str(error).split())}): delete it"
            ) from error
        records[record.name] = record
    return records


def _record(note: Mapping[str, Any]) -> Record:
    if note["kind"] not in get_args(Kind):
        raise ValueError(f"unknown kind {note['kind']!r}")
    tasks = tuple(tuple(map(str, files)) for files in note["tasks"])
    return Record(str(note["name"]), note["kind"], tasks, tuple(map(str, note["jobs"])))


def logs_of(folder: Path, record: Record, index: int) -> list[Path]:
    """Output of a task of a record, of all attempts that have left one, the newest last."""
    numbers = [f"{job}_{index}" if record.kind == "probe" else job for job in record.jobs]
    paths = [folder / LOGS / f"{record.name}-{number}.out" for number in numbers]
    return [path for path in paths if path.is_file()]


# -- SLURM's commands ------------------------------------------------------------------------------


def read_queue(folder: Path) -> list[Entry]:
    """The user's jobs in the queue that were submitted from a folder.

    Raises:
        UserError: the queue cannot be read: nobody knows what is in it.
    """
    shown = _ask("squeue", "--me", "--noheader", "--array", "--format=%i %T %j %r")
    return list(parse_queue(shown, read_records(folder)))


def parse_queue(shown: str, records: Mapping[str, Record]) -> Iterator[Entry]:
    """The lines of squeue (`JOB STATE NAME REASON`) that have a record."""
    for line in shown.splitlines():
        job, state, name, reason = [*line.split(maxsplit=3), "", "", "", ""][:4]
        record = records.get(name)
        if record is None:
            continue
        index = int(job.partition("_")[2] or 0)
        word: Word = "running" if state in _RUNNING else "queued"
        yield Entry(job, word, reason.strip("()"), record, record.tasks[index])


def submit(folder: Path, script: Script, text: str) -> str:
    """Submits a script and gives the number of its job.

    Raises:
        UserError: SLURM refuses it; the text has its words.
    """
    write_record(folder, script, text)
    answer = _ask("sbatch", "--parsable", f"{script.name}.sh", cwd=folder)
    job = answer.strip().partition(";")[0]
    write_record(folder, script, text, [job])
    return job


def test_submission(folder: Path, script: Script, text: str) -> str:
    """What SLURM would do with a script, in its own words; submits nothing.

    Raises:
        UserError: SLURM would refuse it.
    """
    (folder / LOGS).mkdir(parents=True, exist_ok=True)
    return _ask("sbatch", "--test-only", cwd=folder, text=text).strip()


def most_array_tasks() -> int:
    """Tasks that one array may have: MaxArraySize, which no index may reach."""
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", _ask("scontrol", "show", "config"))
    return max(1, int(found[1]) if found else _USUAL_ARRAY)


def state_of(job: str) -> str:
    """The state of a job that has ended, such as CANCELLED; empty when SLURM has forgotten it."""
    try:
        shown = _ask("scontrol", "show", "job", "--oneliner", job)
    except UserError:
        return ""
    found = re.search(r"JobState=(\w+)", shown)
    return found[1] if found else ""


def _ask(*command: str, cwd: Path | None = None, text: str = "") -> str:
    """What a command of SLURM answers.

    Raises:
        UserError: it fails; the text has its first words.
    """
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            input=text,
            capture_output=True,
            check=False,
            timeout=_ANSWER_S,
            encoding="utf-8",
            errors="surrogateescape",
        )
    except FileNotFoundError as error:
        raise UserError(
            f"{command[0]} is not on this machine: run this on a login node of the cluster, or "
            "without launcher=slurm"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"{command[0]} has not answered for {_ANSWER_S:.0f} s: run the same command again later"
        ) from error

    if done.returncode:
        words = " ".join((done.stderr or done.stdout).split())[:400]
        raise UserError(
            f"{command[0]} failed ({words or done.returncode}): put right what it names (most is "
            "in launcher), or run the same command again later"
        )
    return done.stdout + (done.stderr if "--test-only" in command else "")
