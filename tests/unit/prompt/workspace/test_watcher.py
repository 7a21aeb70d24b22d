import threading

from structlog.testing import capture_logs

from clasper_worker.prompt.workspace.watcher import Watcher, process_watcher


class Target:
    """Counts the looks at it; lets a test wait for a number of them."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.looks = 0
        self.threads: set[str] = set()
        self._seen = threading.Condition()

    def look(self) -> bool:
        with self._seen:
            self.looks += 1
            self.threads.add(threading.current_thread().name)
            self._seen.notify_all()
        if self.fails:
            raise RuntimeError("a defect")
        return False

    def wait_for(self, looks: int) -> bool:
        with self._seen:
            return self._seen.wait_for(lambda: self.looks >= looks, timeout=20)


def test_every_target_is_looked_at_by_one_thread() -> None:
    watcher = Watcher(interval=0.005)
    targets = [Target(), Target()]
    for target in targets:
        watcher.add(target)
    assert all(target.wait_for(3) for target in targets)
    assert {name for target in targets for name in target.threads} == {"clasper-workspace-watcher"}
    for target in targets:
        watcher.remove(target)


def test_a_target_that_fails_does_not_end_the_watching_of_the_others() -> None:
    watcher = Watcher(interval=0.005)
    broken, sound = Target(fails=True), Target()
    with capture_logs() as logs:
        watcher.add(broken)
        watcher.add(sound)
        assert sound.wait_for(3)
        watcher.remove(broken)
        watcher.remove(sound)
    assert "workspace_look_failed" in {entry["event"] for entry in logs}


def test_the_thread_ends_with_the_last_target_and_starts_again_with_the_next() -> None:
    watcher = Watcher(interval=0.005)
    target = Target()
    watcher.add(target)
    thread = watcher._thread
    assert thread is not None
    watcher.remove(target)
    thread.join(20)
    assert not thread.is_alive()
    again = Target()
    watcher.add(again)
    assert again.wait_for(1)
    watcher.remove(again)


def test_the_watcher_does_not_keep_a_process_alive() -> None:
    watcher = Watcher(interval=0.005)
    target = Target()
    watcher.add(target)
    assert watcher._thread is not None
    assert watcher._thread.daemon
    watcher.remove(target)


def test_a_process_has_one_watcher() -> None:
    assert process_watcher() is process_watcher()
