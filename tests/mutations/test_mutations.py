"""Every single change of `mutations.py` is noticed by some test.

Conventions: a change is made in a copy of the tree; the tests that are named for it run there, and
one of them must fail. Two changes are tried at a time. A change whose text is not found exactly
once is a failure of its own, since it shows nothing: bring it up to date.
"""

import compileall
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from py_compile import PycInvalidationMode

import pytest
from mutations.mutations import MUTATIONS, Mutation
from mutations.running import NEVER_ENDED, ROOT, run_tests

pytestmark = pytest.mark.mutation
PARTS = ("mirprobe", "datamodules", "conf", "tests")
NOT_COPIED = shutil.ignore_patterns("__pycache__", "mutations", "real_labels")
AT_ONCE = 2
LONGEST_S = 180
PASSED, FAILED = 0, 1  # exit codes of pytest; others say that it could not run the tests
Attempt = Future[tuple[int, str]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as it is, with byte code that knows its source by content: copies start faster."""
    tree = tmp_path_factory.mktemp("mutations") / "whole"
    for name in PARTS:
        shutil.copytree(ROOT / name, tree / name, ignore=NOT_COPIED)
    shutil.copy2(ROOT / "pyproject.toml", tree)
    for name in ("mirprobe", "datamodules"):
        mode = PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(tree / name, quiet=2, invalidation_mode=mode)
    return tree


def try_mutation(mutation: Mutation, whole: Path) -> tuple[int, str]:
    """Makes one change in a copy of the tree and runs its tests there."""
    text = (whole / mutation.file).read_text(encoding="utf-8")
    n_found = text.count(mutation.old)
    if n_found != 1:
        place = f"the text is {n_found} times in {mutation.file}, expected once"
        return -1, f"{place}: bring tests/mutations/mutations.py up to date\n{mutation.old}"

    tree = whole.parent / f"change_{MUTATIONS.index(mutation):03d}"
    shutil.copytree(whole, tree)
    (tree / mutation.file).write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        return run_tests(tree, mutation.tests, "-x", longest_s=LONGEST_S)
    finally:
        shutil.rmtree(tree)


@pytest.fixture(scope="module")
def attempts(request: pytest.FixtureRequest, whole: Path) -> Iterator[Mapping[str, Attempt]]:
    """What becomes of every change that this run is about, two at a time."""
    chosen: list[Mutation] = []
    for item in request.session.items:
        callspec = getattr(item, "callspec", None)
        if callspec is not None and "mutation" in callspec.params:
            chosen.append(callspec.params["mutation"])

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {one.what: pool.submit(try_mutation, one, whole) for one in chosen}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.what)
def test_a_change_is_noticed(mutation: Mutation, attempts: Mapping[str, Attempt]) -> None:
    code, output = attempts[mutation.what].result()
    if code == PASSED:
        names = "\n".join(mutation.tests)
        pytest.fail(f"survived: {mutation.what} ({mutation.why})\n{names}", pytrace=False)
    if code not in (FAILED, NEVER_ENDED):
        pytest.fail(f"not tried: {mutation.what}\n{output}", pytrace=False)


def test_the_named_tests_pass_in_a_copy_without_a_change(whole: Path) -> None:
    """A test that fails anyway would notice everything."""
    named = dict.fromkeys(name for mutation in MUTATIONS for name in mutation.tests)
    code, output = run_tests(whole, list(named), longest_s=10 * LONGEST_S)
    assert code == PASSED, output


def test_every_change_is_a_change_of_its_own() -> None:
    assert len({mutation.what for mutation in MUTATIONS}) == len(MUTATIONS) >= 60
    assert len({(one.file, one.old, one.new) for one in MUTATIONS}) == len(MUTATIONS)
    assert all(mutation.old != mutation.new for mutation in MUTATIONS)
