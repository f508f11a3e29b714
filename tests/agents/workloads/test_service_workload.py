"""Services: real cgroups of this machine; systemd stands in as a program on PATH, for none runs here."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from agents.errors import WorkloadError
from agents.messages import WorkloadSpec, WorkloadState
from agents.sysroot import FolderRoot
from agents.workloads import check_workload, restart_service, service, start_workload
from agents.workloads.service import is_populated

Runs: TypeAlias = Any  # conftest.py
FINISHED, FAILED, RUNNING = WorkloadState.FINISHED, WorkloadState.FAILED, WorkloadState.RUNNING
HIERARCHIES = {"v1": Path("/sys/fs/cgroup/memory"), "v2": Path("/sys/fs/cgroup/unified")}


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "300"]) as process:
        yield process
        process.kill()


@pytest.fixture(params=HIERARCHIES)
def cgroup(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A real cgroup, made for the test and removed after it."""
    mount = HIERARCHIES[request.param]
    if not os.access(mount / "cgroup.procs", os.W_OK):
        pytest.skip(f"no cgroup can be made below {mount}")
    folder = mount / f"fleetexp-test-{os.getpid()}"
    folder.mkdir()
    yield folder
    for made in (*folder.glob("*/"), folder):
        for pid in (made / "cgroup.procs").read_text().split():
            (mount / "cgroup.procs").write_text(pid)
        made.rmdir()


def attach(cgroup: Path | str) -> Any:  # noqa: ANN401
    spec = WorkloadSpec(kind="service", options={"cgroup": f"/{Path(cgroup).name}"})
    return start_workload(spec, root=FolderRoot(), work_dir=Path("/nonexistent"), time_limit_seconds=1.0)


def test_a_cgroup_with_a_process_is_watched_until_the_process_ends(
    runs: Runs, cgroup: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    (cgroup / "cgroup.procs").write_text(str(sleeper.pid))
    workload = attach(cgroup)
    assert workload.poll() == (RUNNING, "")
    assert (workload.pid, workload.cgroup, workload.measurements()) == (None, f"/{cgroup.name}", [])
    sleeper.kill()
    sleeper.wait()
    runs.until(lambda: workload.poll()[0] is FAILED, seconds=5)
    assert "no process is left in its cgroup" in workload.poll()[1]
    workload.stop()
    assert workload.poll()[0] is FAILED


def test_processes_below_a_cgroup_count_as_its_own(cgroup: Path, sleeper: subprocess.Popen[bytes]) -> None:
    (cgroup / "inner").mkdir()
    assert not is_populated(FolderRoot(), f"/{cgroup.name}")
    (cgroup / "inner" / "cgroup.procs").write_text(str(sleeper.pid))
    assert is_populated(FolderRoot(), f"/{cgroup.name}")
    assert is_populated(FolderRoot(), str(cgroup))


def test_stopping_the_watch_leaves_the_service_alone(cgroup: Path, sleeper: subprocess.Popen[bytes]) -> None:
    (cgroup / "cgroup.procs").write_text(str(sleeper.pid))
    workload = attach(cgroup)
    workload.wait_until_ready(0.0)
    workload.go()
    workload.stop()
    workload.stop()
    assert workload.poll() == (FINISHED, "no longer watched; the service runs on")
    assert sleeper.poll() is None


def test_an_empty_or_missing_cgroup_is_refused(cgroup: Path) -> None:
    with pytest.raises(WorkloadError, match="no process runs in the cgroup"):
        attach(cgroup)
    with pytest.raises(WorkloadError, match="no process runs in the cgroup /no-such"):
        attach("no-such")


def test_no_cgroup_holds_no_process() -> None:
    assert not is_populated(FolderRoot(), "/")


def test_a_cgroup_of_another_root_is_read_there(tmp_path: Path) -> None:
    folder = tmp_path / "sys/fs/cgroup/web.slice"
    folder.mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cgroup.controllers").write_text("memory\n")
    (folder / "cgroup.procs").write_text("")
    (folder / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    root = FolderRoot(tmp_path)
    spec = WorkloadSpec(kind="service", options={"cgroup": "/web.slice"})
    assert check_workload(spec, root) == ()
    workload = start_workload(spec, root=root, work_dir=tmp_path, time_limit_seconds=1.0)
    assert workload.poll()[0] is RUNNING
    (folder / "cgroup.events").write_text("populated 0\nfrozen 0\n")
    assert workload.poll()[0] is FAILED


# ---------------------------------------------------------------------------- units, with a systemctl that stands in
SYSTEMCTL = r"""#!/bin/sh
cd "$(dirname "$0")" || exit 9
echo "$@" >> called
for last; do :; done
case " $* " in
*" restart "*) [ -e refuses ] && { echo "Job for $last failed." >&2; exit 1; }
    [ -e hangs ] && exec sleep 60
    cat after_restart > shown 2>/dev/null; exit 0 ;;
*" show "*) cat shown; [ -e then ] && mv then shown; exit 0 ;;
esac
exit 9
"""


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Put a stand-in for systemctl first on PATH; it shows what the files beside it say."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "systemctl").write_text(SYSTEMCTL)
    (folder / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def shows(file: str = "shown", **properties: object) -> Path:
        loaded = {"LoadState": "loaded", "ActiveState": "active", "SubState": "running"}
        lines = [f"{name}={value}\n" for name, value in (loaded | properties).items()]
        (folder / file).write_text("".join(lines))
        return folder

    return shows


WEB = WorkloadSpec(kind="service", options={"unit": "web.service", "restart": "on_apply"})


def start_web() -> Any:  # noqa: ANN401
    return start_workload(WEB, root=FolderRoot(), work_dir=Path("/nonexistent"), time_limit_seconds=1.0)


def test_a_unit_is_found_by_its_cgroup_and_watched_by_its_main_process(
    cgroup: Path, sleeper: subprocess.Popen[bytes], systemctl: Callable[..., Path]
) -> None:
    (cgroup / "cgroup.procs").write_text(f"{sleeper.pid}")
    with subprocess.Popen(["sleep", "300"]) as other:  # so that the cgroup stays populated
        (cgroup / "cgroup.procs").write_text(f"{other.pid}")
        systemctl(ControlGroup=f"/{cgroup.name}", MainPID=sleeper.pid)
        assert check_workload(WEB, FolderRoot()) == ()
        workload = start_web()
        assert workload.poll() == (RUNNING, "")
        assert workload.cgroup == f"/{cgroup.name}"
        sleeper.kill()
        sleeper.wait()
        state, detail = workload.poll()
        other.kill()
    assert state is FAILED
    assert f"the main process {sleeper.pid} of web.service ended" in detail


@pytest.mark.parametrize(
    ("properties", "what"),
    [
        ({"LoadState": "not-found"}, "systemd has no unit web.service: not-found"),
        ({"ActiveState": "inactive", "SubState": "dead"}, "web.service is inactive (dead)"),
        ({"ControlGroup": "", "MainPID": "junk"}, "no process runs in the cgroup (none)"),
    ],
)
def test_a_unit_that_does_not_run_is_a_problem_and_an_error(
    systemctl: Callable[..., Path], properties: dict[str, str], what: str
) -> None:
    systemctl(**properties)
    (problem,) = check_workload(WEB, FolderRoot())
    assert problem.what == what and problem.remedy
    with pytest.raises(WorkloadError) as caught:
        start_web()
    assert caught.value.what == what


def test_restart_waits_until_the_unit_is_active_again(
    systemctl: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_POLL_SECONDS", 0.0)
    folder = systemctl(MainPID=10)
    systemctl("after_restart", ActiveState="activating", SubState="start")
    systemctl("then", MainPID=11)
    assert restart_service(WEB, FolderRoot()) == "web.service restarted, main process 11"
    called = (folder / "called").read_text().splitlines()
    assert called[0].endswith("restart -- web.service")
    assert len(called) == 3 and all(" show " in line for line in called[1:])


def test_a_unit_that_does_not_come_back_is_an_error(
    systemctl: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    systemctl()
    systemctl("after_restart", ActiveState="failed", SubState="failed", Result="exit-code")
    with pytest.raises(WorkloadError, match=r"did not come back: it is failed \(failed\), result exit-code"):
        restart_service(WEB, FolderRoot())
    systemctl("after_restart", ActiveState="activating", SubState="start")
    monkeypatch.setattr(service, "ACTIVE_SECONDS", 0.0)
    with pytest.raises(WorkloadError, match="activating"):
        restart_service(WEB, FolderRoot())


def test_a_restart_that_systemd_refuses_or_never_ends_is_an_error(
    systemctl: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = systemctl()
    (folder / "refuses").touch()
    with pytest.raises(WorkloadError, match=r"exit status 1: 'Job for web.service failed.'"):
        restart_service(WEB, FolderRoot())
    (folder / "refuses").unlink()
    (folder / "hangs").touch()
    monkeypatch.setattr(service, "RESTART_SECONDS", 0.2)
    with pytest.raises(WorkloadError, match="gave no answer"):
        restart_service(WEB, FolderRoot())


def test_a_host_without_systemctl_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WorkloadError, match="systemctl can't be run") as caught:
        restart_service(WEB, FolderRoot())
    assert "cgroup" in caught.value.remedy


def test_only_a_unit_that_may_be_is_restarted(tmp_path: Path) -> None:
    calm = WorkloadSpec(kind="service", options={"unit": "web.service"})
    assert restart_service(calm, FolderRoot()) == "not restarted: restart is 'never'"
    with pytest.raises(WorkloadError, match="command is not a service"):
        restart_service(WorkloadSpec(kind="command", options={"argv": ("true",)}), FolderRoot())
    with pytest.raises(WorkloadError, match="runs on this machine"):
        restart_service(WEB, FolderRoot(tmp_path))
    (problem,) = check_workload(WEB, FolderRoot(tmp_path))
    assert "runs on this machine" in problem.what
