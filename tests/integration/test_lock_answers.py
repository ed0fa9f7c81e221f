"""shoal.Lock when ZooKeeper has done what it was asked and its answer never came."""

import threading

from kazoo.exceptions import ConnectionLoss

import shoal


def test_trap_9_a_place_whose_answer_was_lost_is_found_again_by_its_prefix(
    directories, operator, chroot
):
    directory = directories()
    client = directory.desk().client
    create, lost = client.create_async, threading.Event()

    def created_but_unheard(path, *arguments, **options):
        result = create(path, *arguments, **options)
        if "/locks/" not in path or lost.is_set():
            return result
        lost.set()
        answer = client.handler.async_result()
        result.rawlink(lambda _: answer.set_exception(ConnectionLoss()))
        return answer

    client.create_async = created_but_unheard
    with shoal.Lock(directory, "x") as lock:
        assert lost.is_set()
        # A second place of our own ahead of us would have kept us waiting for ourselves.
        path = f"/{chroot.partition('/')[2]}/locks/x"
        (name,) = operator.get_children(path)
        assert operator.exists(f"{path}/{name}").czxid == lock.fence
    assert operator.get_children(path) == []
