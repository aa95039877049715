"""Bad input, as a plain table: how it is made, the command, and what must be said of it.

Conventions: `{w}` in a word stands for the folder of the world (`world.py`). A case of exit
code 2 ends with one line on stderr that starts with `mirprobe: ` and has all of `says`, every other
with none there; and all end with every file as it was.
"""

import json
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from bad_input.world import (
    AUDIO,
    LABELS,
    NOTES,
    OWN,
    QUICK,
    Damage,
    both,
    change,
    cut,
    file_instead,
    folder_instead,
    remove,
    settings,
    write,
)
from conftest import RATE

MARKER = "code_was_run"  # file that hostile input tries to write
LONG = "x" * 300


@dataclass(frozen=True)
class Case:
    """One accident.

    Attributes:
        area: row of the table in the README.
        name: of the accident, in words.
        command: verb and settings; the world's own go between unless `bare`.
        says: what the line must have.
        make: does the damage.
        code: expected exit code.
        environment: variables that are set.
        bare: whether the command stands for itself.
        prints: what stdout must have.
        absent: patterns of what must not be there afterwards.
        unprivileged: whether the user may not be root, to whom nothing is forbidden.
    """

    area: str
    name: str
    command: str | tuple[str, ...]
    says: tuple[str, ...] = ()
    make: Damage | None = None
    code: int = 2
    environment: Mapping[str, str] = field(default_factory=dict)
    bare: bool = False
    prints: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    unprivileged: bool = False

    def words(self, world: Path) -> list[str]:
        """The command line in that world."""
        words = self.command.split() if isinstance(self.command, str) else list(self.command)
        if not words:
            return []
        given = [] if self.bare else [*settings(world), *QUICK]
        return [words[0], *given, *(word.replace("{w}", str(world)) for word in words[1:])]


NEW = "sweep protocol.lr=2e-3"  # a cell that is not done, on features that are stored
AFRESH = "sweep task.clip.seconds=0.2"  # nothing of it is stored
OURS = "sweep task=manifest task.options.file={w}/own/my.csv"

COMMAND_LINE = [
    Case("command line", "an unknown verb", "swep", ("swep", "--help"), bare=True),
    Case("command line", "no verb", (), ("VERB",), bare=True),
    Case("command line", "an unknown option", "sweep --fast", ("--fast",)),
    Case("command line", "a verb twice", "sweep sweep", ("'sweep' is not a setting", "key=value")),
    Case("command line", "an unknown model", "sweep model=fcp", ("did you mean 'fcpe'",)),
    Case("command line", "a model as a list", "sweep model=[fcpe]", ("unknown model",)),
    Case("command line", "an empty model", "sweep model=", ("unknown model ''",)),
    Case("command line", "an unknown task", "sweep task=nsynth", ("unknown task 'nsynth'",)),
    Case("command line", "an unknown baseline", "sweep baseline=mfcc", ("unknown baseline",)),
    Case("command line", "no tasks", ("report", "tasks=[]"), ("tasks is empty",), bare=True),
    Case("command line", "a slip in a key", "sweep protocol.lrr=1", ("'protocol.lr'",)),
    Case("command line", "a slip in an option", f"{OURS}x task.options.fil=x", ("options.file'",)),
    Case("command line", "an added option", f"{OURS} +task.options.fil=x", ("options.fil, did",)),
    Case("command line", "a section as a value", "sweep task.clip=30", ("task.clip=30", "section")),
    Case("command line", "an open brace", "sweep data.root={a", ('data.root="{a"',)),
    Case("command line", "an open list", "sweep data.exclude=[a", ("data.exclude", '["A","B"]')),
    Case("command line", "a variable of nothing", "sweep seed=${}", ("seed=${}", "quotes")),
    Case("command line", "a folder with (1)", ("sweep", "data.root=/d (1)"), ('"/d (1)"',)),
    Case("command line", "a folder with =", "sweep data.root=/a=b", ('data.root="/a=b"',)),
    Case("command line", "an apostrophe", "sweep data.root=it's", ("it's", "quotes")),
    Case("command line", "an open interval", "sweep seed=interval(0,1)", ("seed=A,B,C",)),
    Case("command line", "a pattern", "sweep seed=glob(*)", ("seed=A,B,C",)),
    Case("command line", "endless seeds", "sweep seed=range(0,1000000000)", ("10000", "cells")),
    Case("command line", "a group taken away", "sweep ~model", ("write model=NAME",)),
    Case("command line", "a group put elsewhere", "sweep model@x=fcpe", ("model@x",)),
    Case("command line", "Hydra's own keys", "sweep hydra.run.dir=x", ("not a setting",)),
    Case("command line", "no such variable", "sweep data.root=${oc.env:NO_SUCH}", ("NO_SUCH",)),
    Case("command line", "an interpolation of itself", "sweep data.root=${data.root}", ("root",)),
    Case("command line", "a file and settings", "sweep --cell={w}/x.yaml", ("either the file",)),
    Case("command line", "a setting of no value", "sweep seed", ("'seed' is not a setting",)),
    Case("command line", "letters that are digits", ("sweep", "seed=\u0661"), ("seed",)),
    Case("command line", "a line end in a value", ("sweep", "model=a\nb"), ("a\\nb",)),
]

SETTINGS = [
    Case("settings", f"{key}={value[:40]}", f"{NEW} {key}={value}", (key, *says))
    for key, value, *says in (
        ("seed", "-1", "4294967295"),
        ("seed", "1.5"),
        ("protocol.lr", "1e30", "100"),
        ("protocol.lr", "nan", "found nan"),
        ("protocol.hidden", "1000000000000", "65536"),
        ("protocol.hidden", "1e22"),
        ("protocol.batch_size", "0", "more than 0"),
        ("protocol.max_epochs", "0", "more than 0"),
        ("protocol.dropout", "1", "below 1"),
        ("protocol.name", "../x", "folders"),
        ("task.clip.seconds", "1e-9", "0.02"),
        ("task.clip.seconds", "1e-5", "0.02"),
        ("task.clip.seconds", "0.001", "0.02"),
        ("task.clip.seconds", "1e308", "36000"),
        ("task.clip.tail_seconds", "1e-4", "0.01"),
        ("task.select_by", "r2", "accuracy"),
        ("data.scale", "1e9", "1000"),
        ("data.root", "", "is empty"),
        ("paths.runs", "", "is empty"),
        ("launcher.devices", "true", "True"),
        ("launcher.devices", "1000000", "256"),
        ("launcher.accelerator", "tpu", "auto, cpu"),
        ("logger.timeout_s", "0", "more than 0"),
        ("logger.timeout_s", "-1", "more than 0"),
        ("logger.mode", "onlin", "offline"),
        ("extract.n_workers", "-1", "-1"),
        ("extract.batch_seconds", "1e-9", "0.01"),
        ("model.name", "a/b", "folders"),
        ("model.name", LONG, "48 letters"),
        ("model.card", "null", "~model.card"),
        ("model.frame_shift_ms", "0", "10 or 15"),
        ("model.frame_shift_ms", "-5", "10 or 15"),
        ("model.frame_shift_ms", "12.3", "10 or 15"),
        ("model.frame_shift_ms", "abc", "10 or 15"),
        ("model._target_", "mirprobe.backbones.fcpe.Nothing", "has no 'Nothing'"),
        ("model._target_", "no_such_package.X", "cannot be imported"),
        ("model._target_", "X", "package.module.Class"),
        ("model._target_", "mirprobe.backbones.fcpe.find_weights", "is not a subclass"),
        ("model._target_", "datamodules.datasets.gtzan.GTZANGenre", "is not a subclass"),
        ("model._target_", "mirprobe.backbones.backbone.Backbone", "subclasses"),
        ("task._target_", "os.system", "is not a subclass"),
        ("task._target_", "antigravity.fly", "is not a subclass"),
    )
] + [
    Case("settings", "no name", "sweep ~model.name", ("model.name", "found None")),
    Case("settings", "no class", "sweep ~model._target_", ("model._target_", "found None")),
    Case("settings", "half a card", "sweep ~model.card.note", ("model.card", "note")),
    Case("settings", "weights of no name", "sweep model=fcpe model.weights=rnd", ("trained",)),
    Case(
        "settings", "a bad seed of a split", f"{OURS} task.options.split_seed=abc", ("split_seed",)
    ),
    Case("settings", "an option of the class", f"{OURS} +task.options.root=/", ("options.root",)),
    Case("settings", "another class of data", "data task._target_=os.system", ("task._target_",)),
    Case("settings", "no class of data", "fetch task._target_=a.b", ("task._target_", "a.b")),
    Case("settings", "a demo of two roots", "probe seed=9", ("no features", "mirprobe extract")),
    Case("settings", "a report too early", "report seed=9", ("1 of 1 cells have no results",)),
    Case("settings", "a push too early", "push seed=9", ("1 of 1 cells have no results",)),
]

YAML = [
    Case("own YAML", name, f"sweep {group}=own", says, write(f"conf/{group}/own.yaml", text))
    for name, group, text, says in (
        ("broken", "model", "name: [a", ("own.yaml",)),
        ("a tab", "model", "name: a\n\tcard: b\n", ("own.yaml",)),
        ("latin-1", "model", "name: caf\xe9\n".encode("latin-1"), ("own.yaml",)),
        ("empty", "model", "", ("model.name", "None")),
        ("no class", "model", "name: own\n", ("model._target_",)),
        ("no name", "model", "_target_: mirprobe.backbones.fcpe.FCPE\n", ("model.name",)),
        ("a list", "model", "- a\n", ("own.yaml",)),
        ("a number", "model", "7\n", ("own.yaml",)),
        ("deep", "model", "[" * 5000, ("own.yaml",)),
        ("an empty task", "task", "", ("task.name",)),
        ("a key of no task", "task", "nam: x\n", ("nam",)),
        ("an empty protocol", "protocol", "", ("protocol",)),
        ("a tag of Python", "model", f"name: !!python/object/apply:os.mkdir [{MARKER}]", ("own",)),
    )
]


def cell_file(text: str | bytes) -> Damage:
    """Writes the file that `--cell` names."""
    return write("x.yaml", text)


def in_cell(*changes: tuple[str, str]) -> Damage:
    """The settings of the finished cell with some text changed, as the file that `--cell` names."""

    def damage(world: Path) -> None:
        (path,) = world.glob("runs/*/*/*/config.yaml")
        text = path.read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        (world / "x.yaml").write_text(text)

    return damage


CODE = f"_target_: pathlib.Path.mkdir\n    self: {MARKER}"
CELLS = [
    Case(
        "cell files",
        name,
        "sweep --cell={w}/x.yaml",
        says,
        make,
        bare=True,
        absent=(f"**/{MARKER}",),
    )
    for name, make, says in (
        ("none", None, ("No such file",)),
        ("a folder", folder_instead("x.yaml"), ("not a file",)),
        ("empty", cell_file(""), ("not a cell file",)),
        ("a list", cell_file("- a"), ("not a cell file",)),
        ("not UTF-8", cell_file(b"name: caf\xe9"), ("not a cell file", "utf-8")),
        ("binary", cell_file(bytes(range(256))), ("not a cell file",)),
        (
            "a tag of Python",
            cell_file(f"a: !!python/object/apply:os.mkdir [{MARKER}]"),
            ("x.yaml",),
        ),
        ("nested 5,000 deep", cell_file("a: " + "[" * 5000 + "]" * 5000), ("nested",)),
        ("huge", cell_file("a: " + "x" * 2_000_000), ("1000000 bytes",)),
        (
            "a bomb of references",
            cell_file(
                "a: &a [x,x]\n"
                + "".join(
                    f"b{i}: &{'abcdefghij'[i]} [{','.join(['*' + 'abcdefghij'[i - 1]] * 9)}]\n"
                    for i in range(1, 10)
                )
            ),
            ("reference",),
        ),
        ("a model without a name", in_cell(("  name: fbank_chroma\n", "")), ("model.name",)),
        ("a value of another type", in_cell(("seed: 0", "seed: zero")), ("seed",)),
        ("a value out of range", in_cell(("max_epochs: 1", "max_epochs: 0")), ("max_epochs",)),
        ("an unknown key", in_cell(("\nseed: 0", "\nsead: 0")), ("sead",)),
        (
            "code as a task",
            in_cell(
                ("datamodules.datasets.nsynth.NSynthPitch", "os.system"), ("\nseed: 0", "\nseed: 5")
            ),
            ("task._target_=os.system",),
        ),
        (
            "code as a model",
            in_cell(
                ("mirprobe.backbones.fbank_chroma.FbankChroma", "subprocess.run"),
                ("\nseed: 0", "\nseed: 5"),
            ),
            ("model._target_=subprocess.run",),
        ),
        (
            "code in an option",
            in_cell(
                ("  options: {}", f"  options:\n   file:\n    {CODE}"), ("\nseed: 0", "\nseed: 5")
            ),
            ("task.options.file",),
        ),
        (
            "code in a card",
            in_cell(
                (
                    "    note: low-level feature, no training",
                    f"    note:\n      {CODE.replace('    ', '      ')}",
                )
            ),
            ("model.card",),
        ),
    )
]

PATHS: list[Case] = [
    Case("names and paths", name, command, says, make)
    for name, command, says, make in (
        ("no data", "sweep data.root=/nowhere", ("/nowhere/NSynth", "data.root"), None),
        ("a file as the root", f"sweep data.root={{w}}/{OWN}", ("NSynth",), None),
        ("too long a root", f"sweep data.root=/{LONG}", ("File name too long",), None),
        ("too long a table", f"sweep task=manifest task.options.file={LONG}", ("too long",), None),
        ("features that are a file", AFRESH, ("features",), file_instead("features")),
        ("features under a file", f"{AFRESH} paths.features={{w}}/{OWN}/x", (OWN,), None),
        ("results that are a file", NEW, ("runs",), file_instead("runs")),
        ("features in /proc", f"{AFRESH} paths.features=/proc/x", ("/proc/x",), None),
        ("results in /proc", f"{NEW} paths.runs=/proc/x", ("/proc/x",), None),
        ("a demo in /proc", "sweep data.root=null paths.data=/proc/x", ("/proc/x",), None),
    )
]


def wav(name: str = AUDIO, *, samples: np.ndarray | None = None, **options: str) -> Damage:
    """Puts a recording in the place of one of the dataset."""

    def damage(world: Path) -> None:
        sound = np.zeros(4000) if samples is None else samples
        soundfile.write(world / name, sound, RATE, format="WAV", **options)

    return damage


def allow(*names: str) -> Damage:
    """Lets everybody write in some folders."""

    def damage(world: Path) -> None:
        for name in names:
            for path in (world / name, *(world / name).rglob("*")):
                path.chmod(0o777)

    return damage


def forbid(name: str) -> Damage:
    """Lets nobody but root read a file or enter a folder."""

    def damage(world: Path) -> None:
        for path in sorted(world.glob(name)):
            path.chmod(0)

    return damage


PATHS += [
    Case("names and paths", f"not allowed: {name}", command, says, make, unprivileged=True)
    for name, command, says, make in (
        ("to read a table", OURS, ("my.csv", "ermission"), forbid(OWN)),
        ("to read the labels", NEW, ("examples.json", "ermission"), forbid(LABELS)),
        (
            "to read audio",
            NEW,
            (Path(AUDIO).name, "ermission"),
            both(wav(), forbid(AUDIO), allow("features", "runs")),
        ),
        ("to enter the data", NEW, ("NSynth",), forbid("data")),
        ("to write features", AFRESH, ("features",), allow("runs")),
        ("to write results", NEW, ("runs",), None),
        ("to read rows", "report", ("rows.jsonl", "ermission"), forbid("runs/*/*/*/*/rows.jsonl")),
        (
            "to read settings",
            "why {w}/runs/fbank_chroma/x",
            ("x",),
            forbid("runs/*/*/*/config.yaml"),
        ),
    )
]


def flac_of_2_to_36_samples(world: Path) -> None:
    """A header that claims 256 GiB of audio, and nothing behind it."""
    rate_and_length = (RATE << 44) | (15 << 36) | (2**36 - 1)
    info = struct.pack(">HH", 4096, 4096) + bytes(6) + struct.pack(">Q", rate_and_length)
    info += bytes(16)
    (world / AUDIO).write_bytes(b"fLaC\x80" + len(info).to_bytes(3, "big") + info)


def header_of_1_mb(world: Path) -> None:
    """A WAV whose header claims more than the file has."""
    content = bytearray((world / AUDIO).read_bytes())
    content[40:44] = struct.pack("<I", 10**6)
    (world / AUDIO).write_bytes(bytes(content))


BAD = "data.exclude"
AUDIO_CASES = [
    Case("audio", name, NEW, (Path(AUDIO).name, *says), make)
    for name, make, says in (
        ("empty", write(AUDIO, ""), (BAD,)),
        ("text", write(AUDIO, "this is no sound"), (BAD,)),
        ("half a header", cut(AUDIO, 0.002), (BAD,)),
        ("half a file", cut(AUDIO, 0.5), (BAD,)),
        ("no samples", wav(samples=np.zeros(0)), (BAD,)),
        ("too short", wav(samples=np.zeros(100)), ("too short", BAD)),
        ("NaN", wav(samples=np.full(4000, np.nan), subtype="FLOAT"), (BAD,)),
        ("infinity", wav(samples=np.full(4000, np.inf), subtype="FLOAT"), (BAD,)),
        ("samples of 1e30", wav(samples=np.full(4000, 1e30), subtype="FLOAT"), (BAD,)),
        ("a FLAC of 2^36 samples", flac_of_2_to_36_samples, (BAD,)),
        ("a header that claims more", header_of_1_mb, (BAD,)),
        ("a folder", folder_instead(AUDIO), ()),
        ("gone", remove(AUDIO), ("no audio", BAD)),
        ("a page of HTML", write(AUDIO, "<!DOCTYPE html><title>404</title>"), (BAD,)),
        ("zeros", write(AUDIO, bytes(10_000)), (BAD,)),
    )
] + [
    Case(
        "audio",
        "a name with markup",
        OURS,
        ("[red]x[/red].wav",),
        both(
            change(OWN, "train00.wav", "[red]x[/red].wav"),
            write("own/[red]x[/red].wav", "no sound"),
        ),
    ),
    Case(
        "audio",
        "a line end in a name",
        "sweep task=manifest task.options.file={w}/own/my.jsonl",
        ("a\\nb.wav",),
        write(
            "own/my.jsonl",
            "".join(
                json.dumps({"path": path, "label": label, "split": split}) + "\n"
                for path, label, split in (
                    ("a\nb.wav", "a", "train"),
                    ("train01.wav", "b", "train"),
                    ("val02.wav", "a", "val"),
                    ("test03.wav", "a", "test"),
                )
            ),
        ),
    ),
]


def first_note(field_name: str, value: str) -> Damage:
    """Puts raw JSON in the place of a field of one note."""

    def damage(world: Path) -> None:
        path = world / LABELS
        entries = json.loads(path.read_text())
        next(iter(entries.values()))[field_name] = "@@"
        path.write_text(json.dumps(entries).replace('"@@"', value))

    return damage


def note_without(field_name: str) -> Damage:
    """Takes a field of one note away."""

    def damage(world: Path) -> None:
        path = world / LABELS
        entries = json.loads(path.read_text())
        del next(iter(entries.values()))[field_name]
        path.write_text(json.dumps(entries))

    return damage


NSYNTH = [
    Case("labels", f"NSynth: {name}", NEW, ("examples.json", *says), make)
    for name, make, says in (
        ("broken JSON", write(LABELS, "{oops"), ("not valid JSON",)),
        ("cut", cut(LABELS, 0.5), ("not valid JSON",)),
        ("empty", write(LABELS, ""), ("not valid JSON",)),
        ("a list", write(LABELS, "[]"), ("object",)),
        ("latin-1", write(LABELS, b'{"caf\xe9": {}}'), ()),
        ("100,000 deep", write(LABELS, "[" * 100_000 + "]" * 100_000), ()),
        ("a folder", folder_instead(LABELS), ()),
        ("gone", remove(LABELS), ()),
        ("entries that are lists", write(LABELS, '{"a": []}'), ()),
        ("no pitch", note_without("pitch"), ("pitch",)),
        ("a pitch of 1e999", first_note("pitch", "1e999"), ()),
        ("a pitch of 60.7", first_note("pitch", "60.7"), ()),
        ("a pitch of null", first_note("pitch", "null"), ()),
        ("a pitch of words", first_note("pitch", '"high"'), ()),
    )
] + [
    Case("labels", "NSynth: a pitch of 200", NEW, ("128 classes",), first_note("pitch", "200")),
    Case(
        "labels",
        "NSynth: no test",
        NEW,
        ("test",),
        write(f"{NOTES}/nsynth-test/examples.json", "{}"),
    ),
    Case("labels", "an unknown id", "sweep data.exclude=[nobody]", ("nobody", "data.exclude")),
]
ROWS = "\n".join(f"train00.wav,a,{split}" for split in ("train", "val", "test"))
TABLES = [
    Case("labels", f"own table: {name}", OURS, says, make)
    for name, make, says in (
        ("gone", remove(OWN), ("my.csv",)),
        ("a folder", folder_instead(OWN), ("my.csv",)),
        ("empty", write(OWN, ""), ("my.csv",)),
        ("only a heading", write(OWN, "path,label\n"), ("my.csv",)),
        ("no path", change(OWN, "path", "file"), ("my.csv", "path")),
        ("no label", change(OWN, "label", "genre"), ("my.csv", "label")),
        ("latin-1", write(OWN, b"path,label\ncaf\xe9.wav,a\n"), ("my.csv",)),
        ("binary", write(OWN, bytes(range(256)) * 10), ("my.csv",)),
        ("an unclosed quote", change(OWN, "train00.wav", '"train00.wav'), ("my.csv",)),
        ("a field of 10^6 letters", change(OWN, ",a,", f",{'x' * 10**6},"), ("my.csv",)),
        ("a cut row", change(OWN, "train00.wav,a,train", "train00.wav"), ("my.csv",)),
        ("an empty label", change(OWN, "train00.wav,a,", "train00.wav,,"), ("my.csv",)),
        ("an unknown split", change(OWN, ",a,train", ",a,learn"), ("learn",)),
        ("a file twice", change(OWN, "train01.wav", "train00.wav"), ("train00.wav",)),
        ("no val", change(OWN, ",val", ",train", 99), ("val",)),
        ("one class", change(OWN, ",b,", ",a,", 99), ()),
        ("audio that is not there", change(OWN, "train00", "none"), ("none.wav",)),
        (
            "a start after the end",
            write(OWN, "path,label,start,end\ntrain00.wav,a,5,1\n"),
            ("my.csv",),
        ),
        ("a start of words", write(OWN, "path,label,start\ntrain00.wav,a,x\n"), ("my.csv",)),
    )
] + [
    Case(
        "labels",
        f"own table: {name}",
        (
            "sweep",
            "task=manifest",
            f"task.options.file={{w}}/{OWN}",
            "task.select_by=r2",
            "task.options.targets=[label]",
        ),
        says,
        make,
    )
    for name, make, says in (
        ("targets that are words", None, ("label",)),
        (
            "a target of 1e308",
            both(change(OWN, ",a,", ",1e308,", 99), change(OWN, ",b,", ",-1e308,", 99)),
            ("1e+308",),
        ),
        (
            "a target of nan",
            both(change(OWN, ",a,", ",nan,", 99), change(OWN, ",b,", ",1,", 99)),
            ("my.csv",),
        ),
    )
]


def torch_file(state: object) -> Damage:
    """Writes a checkpoint with torch."""

    def damage(world: Path) -> None:
        import torch

        torch.save(state() if callable(state) else state, world / "x.pt")

    return damage


def _sparse() -> object:
    import torch

    return {"a": torch.eye(3).to_sparse()}


class _Hostile:
    """Makes a folder where it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.mkdir, (MARKER,)


def zip_of_noise(world: Path) -> None:
    """A zip archive, as torch writes them, of the wrong members."""
    with zipfile.ZipFile(world / "x.pt", "w") as archive:
        archive.writestr("archive/data.pkl", bytes(range(256)))


FILES: tuple[tuple[str, Damage | None], ...] = (
    ("gone", None),
    ("a folder", folder_instead("x.pt")),
    ("empty", write("x.pt", "")),
    ("text", write("x.pt", "no weights")),
    ("a page of HTML", write("x.pt", "<!DOCTYPE html>" * 1000)),
    ("a zip of noise", zip_of_noise),
    ("keys that are numbers", torch_file({1: 2})),
    ("a sparse tensor", torch_file(_sparse)),
    ("a pickle with code", torch_file(_Hostile())),
)
CHECKPOINTS = [
    Case(
        "checkpoints",
        f"{model}: {name}",
        f"{AFRESH} model={model} model.checkpoint={{w}}/x.pt",
        ("x.pt",),
        make,
        absent=(f"**/{MARKER}",),
    )
    for model in ("fcpe", "musicfm", "muq")
    for name, make in FILES
] + [
    Case(
        "checkpoints",
        "beside random weights",
        f"{AFRESH} model=fcpe model.weights=random model.checkpoint={{w}}/x.pt",
        ("model.checkpoint",),
        write("x.pt", ""),
    ),
    Case(
        "checkpoints",
        "of the second model: the first is worked",
        f"{AFRESH} model=fbank_chroma,musicfm",
        code=1,
        prints=("failed, the others go on: the weights pretrained_msd.pt", "mirprobe fetch"),
    ),
]

STORE_FILE, SHARD = "features/nsynth-*/store.json", "features/nsynth-*/part-*.h5"
STORE = [
    Case("store", name, NEW, says, both(wav(), make))  # with one recording to be stored
    for name, make, says in (
        ("store.json empty", write(STORE_FILE, ""), ("store.json",)),
        ("store.json broken", write(STORE_FILE, "{"), ("store.json",)),
        ("store.json a list", write(STORE_FILE, "[1]"), ("store.json",)),
        ("store.json 100,000 deep", write(STORE_FILE, "[" * 100_000), ("store.json",)),
        ("store.json not UTF-8", write(STORE_FILE, b"\xff\xfe"), ("store.json",)),
        ("store.json a folder", folder_instead(STORE_FILE), ("store.json",)),
        ("store.json of another", change(STORE_FILE, "fbank_chroma", "fcpe"), ("store.json",)),
        ("a shard that is empty", write(SHARD, ""), ("part-",)),
        ("a shard that is cut", cut(SHARD, 0.5), ("part-",)),
        ("a shard of text", write(SHARD, "no shard"), ("part-",)),
        ("a shard that is a folder", folder_instead(SHARD), ("part-",)),
        ("a lock that is a folder", folder_instead("features/nsynth-*/.lock"), (".lock",)),
    )
]

ROWS_FILE = "runs/*/*/*/*/rows.jsonl"
MADE_FILE = "runs/*/*/*/*/made_of.json"


def keep_lines(*numbers: int) -> Damage:
    """Keeps some rows of the result."""

    def damage(world: Path) -> None:
        (path,) = world.glob(ROWS_FILE)
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[number] for number in numbers))

    return damage


def row_value(name: str, value: object) -> Damage:
    """Sets a field of every row."""

    def damage(world: Path) -> None:
        (path,) = world.glob(ROWS_FILE)
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(row | {name: value}) + "\n" for row in rows))

    return damage


RESULTS = [
    Case("results", name, "report", says, make)
    for name, make, says in (
        ("rows empty", write(ROWS_FILE, ""), ("rows.jsonl",)),
        ("rows cut", cut(ROWS_FILE, 0.6), ("rows.jsonl",)),
        ("rows of text", write(ROWS_FILE, "no rows\n"), ("rows.jsonl",)),
        ("rows not UTF-8", write(ROWS_FILE, b"\xff\xfe\n"), ("rows.jsonl",)),
        ("rows 100,000 deep", write(ROWS_FILE, "[" * 100_000 + "\n"), ("rows.jsonl",)),
        ("rows a folder", folder_instead(ROWS_FILE), ("rows.jsonl",)),
        ("half of the rows", keep_lines(0), ("rows.jsonl",)),
        ("only test rows", keep_lines(1), ("rows.jsonl",)),
        ("a value of text", row_value("value", "high"), ("rows.jsonl",)),
        ("a field too much", row_value("colour", "red"), ("rows.jsonl",)),
        ("rows of another cell", row_value("config_hash", "0" * 12), ("rows.jsonl",)),
        ("made_of.json broken", write(MADE_FILE, "{"), ("made_of.json",)),
        ("made_of.json a list", write(MADE_FILE, "[]"), ("made_of.json",)),
        ("made_of.json of nothing", write(MADE_FILE, '{"made_of": {}}'), ("made_of.json",)),
        ("made_of.json a folder", folder_instead(MADE_FILE), ("made_of.json",)),
        ("a stamp that is broken", write("runs/*/*/*/*/stamp-*.json", "{"), ("stamp-",)),
    )
] + [
    Case("results", "why of nothing", "why nothing", ("nothing is no result",), bare=True),
    Case("results", "why of no hash", "why 0123abcd paths.runs={w}/runs", ("0123abcd",), bare=True),
    Case("results", "no results", "why abcd paths.runs=/nowhere", ("paths.runs",), bare=True),
    Case("results", "why without a word", "why", ("CELL|ROW",), bare=True),
    Case(
        "results",
        "why without settings",
        "why {w}/runs/fbank_chroma paths.runs={w}/runs",
        ("is no result",),
        bare=True,
    ),
]

TRACKED = "logger=wandb logger.mode=offline"
WANDB = [
    Case(
        "W&B",
        f"{name}={value[:20]}",
        f"{NEW} {TRACKED}",
        (name,),
        environment={name: value},
        absent=("runs/*/*/*/*/wandb.json", "runs/*/*/*lr*"),
    )
    for name, value in (
        ("WANDB_BASE_URL", "nonsense"),
        ("WANDB_BASE_URL", "http://["),
        ("WANDB_PROJECT", "a/b"),
        ("WANDB_PROJECT", "x" * 200),
        ("WANDB_TAGS", ","),
        ("WANDB_SILENT", "perhaps"),
        ("WANDB_MODE", "onlin"),
        ("WANDB_CONSOLE", "loud"),
        ("WANDB_HTTP_TIMEOUT", "soon"),
    )
] + [
    Case(
        "W&B", "a project with a slash", f"{NEW} {TRACKED} logger.project=a/b", ("logger.project",)
    ),
    Case(
        "W&B",
        "runs that are a file: the table is printed all the same",
        f"sweep {TRACKED}",
        ("wandb",),
        file_instead("runs/wandb"),
        prints=("Table 1",),
    ),
    Case(
        "W&B",
        "a lock that is a folder: the table is printed all the same",
        f"sweep {TRACKED}",
        (".lock",),
        folder_instead("runs/wandb/.lock"),
        prints=("Table 1",),
    ),
    Case(
        "W&B",
        "a netrc of latin-1 is no key",
        "sweep logger=wandb",
        (),
        write("home/.netrc", b"machine caf\xe9 login a password b\n"),
        code=0,
        environment={"HOME": "{w}/home"},
        prints=("1 runs, offline",),
    ),
]

FETCH = [
    Case("fetch", "data without a place", "fetch task=nsynth_pitch", ("data.root=DIR",), bare=True),
    Case(
        "fetch", "data that nobody publishes", "fetch task=musictaste_rap", ("by hand",), bare=True
    ),
    Case("fetch", "unknown weights", "fetch model=musicfm model.weights=foo", ("msd",), bare=True),
    Case(
        "fetch",
        "a broken record",
        "fetch task=gtzan_genre data.root={w}/data",
        (".ok", "delete it"),
        both(
            write("data/GTZAN/.genres.tar.gz.ok", "{"),
            write("data/GTZAN/x", ""),
        ),
        bare=True,
    ),
]

CASES: list[Case] = [
    *COMMAND_LINE,
    *SETTINGS,
    *YAML,
    *CELLS,
    *PATHS,
    *AUDIO_CASES,
    *NSYNTH,
    *TABLES,
    *CHECKPOINTS,
    *STORE,
    *RESULTS,
    *WANDB,
    *FETCH,
]
