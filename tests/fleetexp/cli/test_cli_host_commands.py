"""The commands about this host: doctor, plan and restore, on the real root (reading only) and on made ones."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from agents.claim import HostClaim, claim_status, take_claim
from agents.messages import Arm
from agents.sysroot import FolderRoot
from fleetexp.exit_codes import ExitCode
from tests.host_tree import build_host

CONFIGS = Path(__file__).parents[3] / "configs"
KNOB = "thp/2048kB/enabled"
FILE = "sys/kernel/mm/transparent_hugepage/hugepages-2048kB/enabled"
Invoke = Callable[..., Result]
HostTree = Callable[..., FolderRoot]


def every_file(root: FolderRoot) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.root.rglob("*") if path.is_file()}


@pytest.fixture
def claimed(host_tree: HostTree) -> Iterator[tuple[FolderRoot, HostClaim]]:
    """A host that a live run holds, with one knob changed."""
    root = host_tree()
    claim = take_claim(root, run="7", owner="root@web-017 pid 1", knobs=[KNOB], lease_seconds=60)
    claim.apply(Arm(name="thp-2m", knobs={KNOB: "always"}))
    yield root, claim
    if claim_status(root) is not None:
        claim.revert()
        claim.release()


# ------------------------------------------------------------------ doctor
def test_doctor_maps_this_machine_on_one_screen_and_changes_nothing(invoke: Invoke) -> None:
    from agents.facts import survey

    before = survey(FolderRoot()).knobs
    result = invoke("doctor")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "what works here" in lines
    assert survey(FolderRoot()).knobs == before


def test_doctor_short_is_a_handful_of_lines(invoke: Invoke) -> None:
    short = invoke("doctor", "--short").stdout.splitlines()
    assert len(short) <= 14
    assert len(short) < len(invoke("doctor").stdout.splitlines())


def test_doctor_json_is_one_object_with_facts_and_capabilities(invoke: Invoke) -> None:
    found = json.loads(invoke("doctor", "--json").stdout)
    assert found["facts"]["kernel"]
    assert {one["name"] for one in found["capabilities"]} >= {"1 GB THP", "dTLB misses"}


def test_doctor_finds_a_patched_kernel_and_names_the_effective_state(invoke: Invoke, host_tree: HostTree) -> None:
    root = host_tree(gigantic=True)
    text = invoke("doctor", "--root", str(root.root)).stdout
    assert "never: 16K 64K 1M 1G" in text
    assert "madvise (by inherit): 2M" in text
    assert "1 GB THP: yes" in text
    assert "WARNING" in text


def test_doctor_leaves_a_tree_as_it_is(invoke: Invoke, host_tree: HostTree) -> None:
    root = host_tree()
    before = every_file(root)
    assert invoke("doctor", "--root", str(root.root)).exit_code == 0
    assert every_file(root) == before


def test_doctor_says_who_holds_the_host(invoke: Invoke, claimed: tuple[FolderRoot, HostClaim]) -> None:
    root, _ = claimed
    text = " ".join(invoke("doctor", "--short", "--root", str(root.root)).stdout.split())
    assert "claim held by run 7 of root@web-017 pid 1: 1 knob changed, lease" in text
    found = json.loads(invoke("doctor", "--json", "--root", str(root.root)).stdout)
    assert found["claim"]["run"] == "7"


# ------------------------------------------------------------------ a state that can't be looked at, or trusted
@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_what_root_holds_is_not_known_to_a_user_without_rights_and_the_map_is(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        monkeypatch.chdir("/")
        root = build_host(Path(folder) / "host")
        claim = take_claim(root, run="7", owner="root", knobs=[KNOB], lease_seconds=60, guardian_command=())
        for user in (0, 65534):  # first as root: the interpreter may lie where only root can look
            os.seteuid(user)
            try:
                seen = invoke("doctor", "--root", str(root.root))
                listed = invoke("hosts", "--fleet", "inline", "--root", str(root.root))
                restored = invoke("restore", "--root", str(root.root))
            finally:
                os.seteuid(0)
        claim.release()
    assert (seen.exit_code, listed.exit_code, restored.exit_code) == (0, 0, ExitCode.ERROR)
    assert "NOT KNOWN" in seen.stdout
    assert "what works here" in seen.stdout
    for text in (seen.stdout, listed.stdout, restored.stderr):
        assert "Permission denied" in text


@pytest.mark.parametrize("words", [("doctor",), ("doctor", "--json"), ("restore",), ("restore", "--force"), ("hosts",)])
def test_a_state_that_others_could_have_written_is_refused_with_the_remedy(
    invoke: Invoke, claimed: tuple[FolderRoot, HostClaim], words: tuple[str, ...]
) -> None:
    root, _ = claimed
    root.state_dir.chmod(0o777)
    result = invoke(*words, "--root", str(root.root), *(("--fleet", "inline") if words == ("hosts",) else ()))
    root.state_dir.chmod(0o700)
    assert result.exit_code == (0 if words == ("hosts",) else ExitCode.ERROR)
    said = "".join((result.stdout if words == ("hosts",) else result.stderr).split())
    for part in ("other users may write there", str(root.state_dir), "chmod go-w"):
        assert part.replace(" ", "") in said
    assert ("what works here" in result.stdout) == (words == ("doctor",))
    assert (root.root / FILE).read_text().startswith("always")


# ------------------------------------------------------------------ restore
def test_restore_leaves_a_host_alone_that_nobody_holds(invoke: Invoke, host_tree: HostTree) -> None:
    root = host_tree()
    before = every_file(root)
    result = invoke("restore", "--root", str(root.root))
    assert result.exit_code == 0, result.stderr
    assert "nothing to restore" in result.stdout
    assert every_file(root) == before
    assert json.loads(invoke("restore", "--json", "--root", str(root.root)).stdout) == {"claimed": False, "changes": []}


def test_restore_refuses_a_live_run_and_names_it(invoke: Invoke, claimed: tuple[FolderRoot, HostClaim]) -> None:
    root, _ = claimed
    result = invoke("restore", "--root", str(root.root))
    assert result.exit_code == ExitCode.ERROR
    assert "run 7" in result.stderr
    assert "root@web-017 pid 1" in result.stderr
    assert root.read(FILE).strip() == b"always"


def test_restore_by_force_puts_a_live_run_back(invoke: Invoke, claimed: tuple[FolderRoot, HostClaim]) -> None:
    root, _ = claimed
    result = invoke("restore", "--force", "--root", str(root.root))
    assert result.exit_code == 0, result.stderr
    assert f"{KNOB}: always -> inherit" in result.stdout
    assert "this host reads as run 7 found it" in result.stdout
    assert root.read(FILE).strip() == b"inherit"
    assert claim_status(root) is None


def test_restore_json_lists_the_changes(invoke: Invoke, claimed: tuple[FolderRoot, HostClaim]) -> None:
    root, _ = claimed
    found = json.loads(invoke("restore", "--force", "--json", "--root", str(root.root)).stdout)
    assert found["claimed"]
    assert [(change["knob"], change["after"]) for change in found["changes"]] == [(KNOB, "inherit")]


def test_a_knob_that_cannot_be_put_back_is_the_loudest_code(
    invoke: Invoke, claimed: tuple[FolderRoot, HostClaim]
) -> None:
    root, _ = claimed
    file = root.root / FILE
    file.unlink()  # the kernel's file has gone: nothing can be written there
    result = invoke("restore", "--force", "--root", str(root.root))
    file.write_text("always\n")
    assert result.exit_code == ExitCode.RESTORE_INCOMPLETE
    assert result.stderr.startswith("error: ")
    assert KNOB in result.stderr


# ------------------------------------------------------------------ plan
@pytest.mark.parametrize("spec", ["thp-2m-demo.yaml"])
def test_plan_shows_the_demo_and_changes_nothing(invoke: Invoke, host_tree: HostTree, spec: str) -> None:
    root = host_tree()
    before = every_file(root)
    result = invoke("plan", str(CONFIGS / spec), "--root", str(root.root))
    assert result.exit_code == 0, result.stderr
    assert f"{KNOB}: reads inherit now" in " ".join(result.stdout.split())
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert every_file(root) == before
    assert not list(Path.cwd().iterdir()) or {path.name for path in Path.cwd().iterdir()} == {"host"}  # no store made


def test_plan_json_is_one_object_with_periods_knobs_and_blast_radius(invoke: Invoke, host_tree: HostTree) -> None:
    root = host_tree()
    found = json.loads(invoke("plan", str(CONFIGS / "thp-2m-demo.yaml"), "--json", "--root", str(root.root)).stdout)
    assert found["found"] == {KNOB: "inherit"}
    assert found["writable"] == {KNOB: True}
    assert found["blast_radius"] == 1
    assert found["expected_seconds"] == 96.0
    assert len(found["plan"]["units"][0]["periods"]) == 32


def test_equal_seeds_give_equal_plans(invoke: Invoke, host_tree: HostTree) -> None:
    root = host_tree()
    command = ("plan", str(CONFIGS / "thp-2m-demo.yaml"), "--json", "--root", str(root.root))
    assert invoke(*command).stdout == invoke(*command).stdout


def test_a_misspelt_key_is_one_line_with_place_and_nearest_key(invoke: Invoke, tmp_path: Path) -> None:
    spec = tmp_path / "a.yaml"
    spec.write_text((CONFIGS / "thp-2m-demo.yaml").read_text().replace("periods:", "peroids:"))
    result = invoke("plan", str(spec))
    assert result.exit_code == ExitCode.ERROR
    assert result.stdout == ""
    assert "a.yaml:" in result.stderr
    assert "'periods'" in result.stderr


def test_a_spec_that_is_not_there_is_a_usage_error(invoke: Invoke) -> None:
    assert invoke("plan", "none.yaml").exit_code == ExitCode.USAGE
    assert invoke("run", "none.yaml").exit_code == ExitCode.USAGE


def test_a_root_that_is_not_there_is_a_usage_error(invoke: Invoke) -> None:
    assert invoke("doctor", "--root", "/nowhere/at/all").exit_code == ExitCode.USAGE


def test_the_experiment_in_the_readme_can_be_planned(invoke: Invoke, host_tree: HostTree, tmp_path: Path) -> None:
    root = host_tree()
    spec = tmp_path / "readme.yaml"
    readme = (CONFIGS.parent / "README.md").read_text()
    spec.write_text(readme.split("```yaml\n")[1].split("```")[0])
    result = invoke("plan", str(spec), "--root", str(root.root))
    assert result.exit_code == 0, result.stderr
    assert "8 blocks" in result.stdout
