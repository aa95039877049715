"""Ten styles of accompaniment, one per GTZAN genre: what a genre is made of in the demo corpus.

Conventions: a bar has 16 steps; in a pattern `x` is a stroke and `.` a rest. Bass patterns name
what is played: `r` root, `f` fifth, `o` octave, `w` any chord tone. Harmony is in degrees of the
scale counted from 0, so 0 is the tonic and 4 the dominant; every progression starts on the tonic.
Programs are General MIDI, counted from 0. Swing is where the off-beat eighth falls within a beat:
0.5 is straight, 0.66 a triplet.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Voicing = Literal["triad", "seventh", "power"]


@dataclass(frozen=True)
class Drums:
    """Patterns of one drum kit; an empty pattern is a silent instrument."""

    kick: str = ""
    snare: str = ""
    hat: str = ""
    open_hat: str = ""
    ride: str = ""


@dataclass(frozen=True)
class Style:
    """Accompaniment of one genre; see the module's conventions.

    Attributes:
        tempo: slowest and fastest, in beats per minute.
        drums: the kit's patterns.
        chords: pattern.
        bass: pattern.
        chord_programs: one of them plays the chords of a song.
        bass_programs: one of them plays the bass.
        lead_programs: one of them plays the melody.
        major: progressions, one chord a bar.
        minor: progressions, one chord a bar.
        swing: share of the beat before its off-beat eighth.
        voicing: notes of a chord.
        minor_share: chance of a song to be in minor.
        chord_length: share of the time to the next chord for which one is held.
        bass_steps: steps for which a bass note is held.
        lead_density: chance of each eighth to have a note of the melody.
    """

    tempo: tuple[float, float]
    drums: Drums
    chords: str
    bass: str
    chord_programs: tuple[int, ...]
    bass_programs: tuple[int, ...]
    lead_programs: tuple[int, ...]
    major: tuple[tuple[int, ...], ...]
    minor: tuple[tuple[int, ...], ...]
    swing: float = 0.5
    voicing: Voicing = "triad"
    minor_share: float = 0.3
    chord_length: float = 0.95
    bass_steps: float = 1.8
    lead_density: float = 0.4


_MAJOR = ((0, 3, 0, 4), (0, 5, 3, 0), (0, 3, 4, 0))
_MINOR = ((0, 3, 0, 4), (0, 5, 3, 0), (0, 3, 4, 0))

STYLES: Mapping[str, Style] = {
    "blues": Style(
        tempo=(70, 110),
        drums=Drums(kick="x.....x.x.......", snare="....x.......x...", hat="x.x.x.x.x.x.x.x."),
        chords="x..x..x.x..x..x.",
        bass="r...f...r...f...",
        chord_programs=(26, 27, 16),
        bass_programs=(32, 33),
        lead_programs=(22, 26, 65),
        major=((0, 0, 0, 0, 3, 3, 0, 0, 4, 3, 0, 4),),
        minor=((0, 0, 3, 0, 4, 3, 0, 0),),
        swing=0.62,
        voicing="seventh",
        bass_steps=3.5,
        lead_density=0.35,
    ),
    "classical": Style(
        tempo=(60, 120),
        drums=Drums(),
        chords="x...x...x...x...",
        bass="r.......f.......",
        chord_programs=(48, 0, 6),
        bass_programs=(42, 43),
        lead_programs=(40, 73, 68, 71),
        major=((0, 3, 4, 0), (0, 5, 3, 0), (0, 1, 4, 0)),
        minor=_MINOR,
        bass_steps=6,
        lead_density=0.6,
    ),
    "country": Style(
        tempo=(90, 140),
        drums=Drums(kick="x.......x.......", snare="....x.......x...", hat="x.x.x.x.x.x.x.x."),
        chords="....x.......x...",
        bass="r.......f.......",
        chord_programs=(25, 24),
        bass_programs=(32,),
        lead_programs=(22, 25, 40, 105),
        major=((0, 0, 3, 0), (0, 3, 0, 4)),
        minor=_MINOR,
        minor_share=0.1,
        chord_length=0.5,
        lead_density=0.5,
    ),
    "disco": Style(
        tempo=(112, 128),
        drums=Drums(kick="x...x...x...x...", snare="....x.......x...", open_hat="..x...x...x...x."),
        chords="..x...x...x...x.",
        bass="r.o.r.o.r.o.r.o.",
        chord_programs=(27, 48, 4),
        bass_programs=(33, 36),
        lead_programs=(48, 61, 81),
        major=((0, 5, 3, 0), (0, 3, 0, 4)),
        minor=_MINOR,
        voicing="seventh",
        chord_length=0.5,
    ),
    "hiphop": Style(
        tempo=(78, 98),
        drums=Drums(kick="x..x......x.x...", snare="....x.......x..x", hat="xxx.xxx.xxx.xxxx"),
        chords="x...............",
        bass="r.........r..o..",
        chord_programs=(4, 5, 88),
        bass_programs=(38, 39),
        lead_programs=(11, 80, 73),
        major=((0, 5), (0, 3)),
        minor=((0, 3), (0, 5)),
        swing=0.56,
        voicing="seventh",
        minor_share=0.6,
        lead_density=0.2,
    ),
    "jazz": Style(
        tempo=(110, 190),
        drums=Drums(kick="x.......x.......", hat="....x.......x...", ride="x...x.x.x...x.x."),
        chords="..x....x..x.....",
        bass="w...w...w...w...",
        chord_programs=(0, 26),
        bass_programs=(32, 35),
        lead_programs=(66, 56, 11, 57),
        major=((0, 5, 1, 4, 0, 0, 1, 4),),
        minor=((0, 5, 3, 4, 0, 0, 3, 4),),
        swing=0.66,
        voicing="seventh",
        chord_length=0.5,
        bass_steps=3.5,
        lead_density=0.6,
    ),
    "metal": Style(
        tempo=(140, 190),
        drums=Drums(kick="x.x.x.x.x.x.x.x.", snare="....x.......x...", hat="x...x...x...x..."),
        chords="x.xxx.xxx.xxx.xx",
        bass="r.rrr.rrr.rrr.rr",
        chord_programs=(30,),
        bass_programs=(34,),
        lead_programs=(30, 29),
        major=((0, 3, 0, 4),),
        minor=((0, 5, 4, 0), (0, 0, 5, 4)),
        voicing="power",
        minor_share=1.0,
        lead_density=0.5,
    ),
    "pop": Style(
        tempo=(95, 128),
        drums=Drums(kick="x.....x.x.......", snare="....x.......x...", hat="x.x.x.x.x.x.x.x."),
        chords="x..x..x.x..x..x.",
        bass="r..r..r.r..r..r.",
        chord_programs=(0, 25, 89),
        bass_programs=(33, 38),
        lead_programs=(81, 54, 53),
        major=_MAJOR,
        minor=_MINOR,
        lead_density=0.5,
    ),
    "reggae": Style(
        tempo=(65, 85),
        drums=Drums(kick="........x.......", snare="........x.......", hat="x.x.x.x.x.x.x.x."),
        chords="....x.......x...",
        bass="r..rf.....r.f...",
        chord_programs=(16, 27, 18),
        bass_programs=(33, 32),
        lead_programs=(61, 22, 56),
        major=((0, 3), (0, 4, 0, 3)),
        minor=((0, 3), (0, 5, 0, 3)),
        swing=0.55,
        chord_length=0.5,
        bass_steps=3.5,
        lead_density=0.25,
    ),
    "rock": Style(
        tempo=(110, 150),
        drums=Drums(kick="x.......x.x.....", snare="....x.......x...", hat="x.x.x.x.x.x.x.x."),
        chords="x.x.x.x.x.x.x.x.",
        bass="r.r.r.r.r.r.r.r.",
        chord_programs=(29, 30),
        bass_programs=(34, 33),
        lead_programs=(29, 27),
        major=((0, 3, 0, 4), (0, 3, 4, 0)),
        minor=((0, 3, 4, 0), (0, 5, 4, 0)),
        voicing="power",
    ),
}
