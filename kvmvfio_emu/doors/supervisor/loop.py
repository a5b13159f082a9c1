"""The event loop: notifications, closes, eventfds and guests, one at a time, in one thread.

One thread, because a busy Python thread beside the listener made a call a thousand times slower; and because
then nothing has to be locked, and a run repeats.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from kvmvfio_emu.doors.supervisor.calls import Handler
from kvmvfio_emu.doors.supervisor.notify import Interrupted
from kvmvfio_emu.doors.supervisor.owed import Owed, Ticket
from kvmvfio_emu.doors.supervisor.reply import Continue, NewFd, Reply, Value
from kvmvfio_emu.doors.supervisor.tasks import Tasks
from kvmvfio_emu.kernel.errors import KernelError, KvmVfioEmuError
from kvmvfio_emu.kernel.kvm.run import RunCall

if TYPE_CHECKING:
    from kvmvfio_emu.doors.descriptors import Descriptors
    from kvmvfio_emu.doors.supervisor.notify import Listener, Notification
    from kvmvfio_emu.kernel.host import Host

#: While a KVM_RUN is parked in WFI, its thread's signals are looked at this often.
_PARKED_MS = 1


class Loop:
    """Serves the supervised processes until the last one is gone.

    ``calls``: handlers by the name of their system call; ``numbers``: the names' numbers; ``killable``: only a
    thread's death ends its wait for our answer (SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV), no signal does.
    """

    def __init__(
        self,
        host: Host,
        descriptors: Descriptors,
        listener: Listener,
        numbers: Mapping[str, int],
        calls: Mapping[str, Handler],
        *,
        killable: bool = True,
    ) -> None:
        self._host = host
        self._listener = listener
        self._tasks = Tasks(host, descriptors, listener)
        self._handlers = {numbers[name]: call for name, call in calls.items() if name in numbers}
        self._parked: dict[int, tuple[RunCall, int]] = {}
        self._owed = None if killable else Owed(numbers)
        self._tickets: dict[int, Ticket] = {}  #: of the calls in progress
        self._extra: dict[int, Callable[[], None]] = {}
        self._epoll = select.epoll()
        self._epoll.register(listener.fd, select.EPOLLIN)
        self._poller_fd = host.poller.fileno()
        self._epoll.register(self._poller_fd, select.EPOLLIN)
        self._looked = 0.0
        # Between two slices a call of another thread may wait for us, so a slice must not cost more than a call.
        host.scheduler.slice = 2
        self.failures = 0  #: calls that we answered EIO since a handler of ours failed

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call ``callback`` when ``fd`` is readable."""
        self._extra[fd] = callback
        self._epoll.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        """End it; ``fd`` must still be open."""
        del self._extra[fd]
        self._epoll.unregister(fd)

    def serve(self) -> None:
        """Run until the listener has nobody left to tell of."""
        runnable = False  # a guest can go on at once
        while True:
            ready = dict(self._epoll.poll(0 if runnable else _PARKED_MS / 1000 if self._parked else -1))
            # Closes first: the event of a close is there before the next call of whoever closed.
            if self._poller_fd in ready:
                self._host.settle()
            events = ready.get(self._listener.fd, 0)
            if events & select.EPOLLIN:
                notification = self._listener.receive()
                if notification is not None:
                    self._serve(notification)
            elif events & (select.EPOLLHUP | select.EPOLLERR):
                break
            if self._extra:
                for fd in ready.keys() & self._extra.keys():
                    self._extra[fd]()
            if self._parked:
                runnable = self._advance()
            if self._host.mirrors:
                self._host.sync_mirrors()
        self._abandon()

    def close(self) -> None:
        """Give our descriptors back; the listener's is its owner's."""
        self._tasks.close()
        self._epoll.close()

    # -- one call ---------------------------------------------------------------------------------------------

    def _serve(self, notification: Notification) -> None:
        if self._owed is not None and self._was_done(notification, self._owed):
            return
        if self._host.mirrors:
            self._host.sync_mirrors()
        try:
            reply = self._execute(notification)
            if isinstance(reply, RunCall):
                self._parked[notification.id] = (reply, notification.tid)
                return
            self._reply(notification, reply)
        except Interrupted:
            pass  # nobody waits, and what was done is undone
        except KernelError as error:
            self._host.event("errno", errno=error.errno, reason=error.reason)
            self._answer(notification.id, notification.tid, -error.errno)
        except ProcessLookupError:
            pass  # killed meanwhile: nobody waits
        except OSError as error:
            self._answer(notification.id, notification.tid, -(error.errno or errno.EIO))
        except KvmVfioEmuError as error:
            self._cannot(notification, error)
        except Exception:
            self._failed(notification)
        finally:
            if notification.id not in self._parked:
                self._tickets.pop(notification.id, None)
            if self._host.work.waiting:
                self._host.settle()

    def _execute(self, notification: Notification) -> Reply | RunCall:
        identifier, tid, number, arguments = notification
        handler = self._handlers[number]
        task = self._host.current = self._tasks.find(tid, identifier)
        try:
            return handler(task, arguments)
        except ProcessLookupError:
            # What we knew under that number was another thread, which is gone; nothing was done yet.
            self._tasks.forget(tid)
            task = self._host.current = self._tasks.find(tid, identifier)
            return handler(task, arguments)

    def _reply(self, notification: Notification, reply: Reply) -> None:
        if isinstance(reply, Continue):
            self._listener.pass_on(notification.id)
        elif isinstance(reply, Value):
            self._answer(notification.id, notification.tid, reply.value)
        else:
            self._give(notification, reply)

    def _give(self, notification: Notification, reply: NewFd) -> None:
        try:
            self._listener.add_fd(notification.id, reply.fd, cloexec=reply.cloexec, answer=True)
        finally:
            os.close(reply.fd)  # if it was interrupted, this undoes the open, and it can try again

    def _answer(self, identifier: int, tid: int, value: int) -> None:
        if not self._listener.answer(identifier, value) and self._owed is not None:
            ticket = self._tickets.get(identifier)
            if ticket is not None:
                self._owed.remember(tid, ticket, value)

    def _was_done(self, notification: Notification, owed: Owed) -> bool:
        """Whether the call needs no execution: it was interrupted already, or after it was executed."""
        identifier, tid, _, _ = notification
        for other, (call, thread) in list(self._parked.items()):
            if thread == tid:  # it is here, so it waits there no more: a signal ended its KVM_RUN
                call.interrupt()
                self._finish(other, call, tid)
        ticket = owed.ticket(notification)
        if ticket is None:
            return False
        self._tickets[identifier] = ticket
        if not self._listener.is_waiting(identifier):
            del self._tickets[identifier]
            return True
        value = owed.claim(tid, ticket)
        if value is None:
            return False
        self._answer(identifier, tid, value)
        del self._tickets[identifier]
        return True

    def _cannot(self, notification: Notification, error: KvmVfioEmuError) -> None:
        """The host lacks what we need: the target gets EIO, the user one line, however often it happens."""
        if not self.failures:
            print(f"kvmvfio-emu: {error}", file=sys.stderr)
        self.failures += 1
        self._answer(notification.id, notification.tid, -errno.EIO)

    def _failed(self, notification: Notification) -> None:
        """A fault of ours: the target gets EIO and goes on, the developer gets the traceback."""
        self.failures += 1
        print(f"kvmvfio-emu: thread {notification.tid}: call {notification.number} failed:", file=sys.stderr)
        traceback.print_exc()
        self._answer(notification.id, notification.tid, -errno.EIO)

    # -- guests -----------------------------------------------------------------------------------------------

    def _advance(self) -> bool:
        """A slice for each KVM_RUN in progress. False when all of them wait."""
        self._look_for_dead()
        try:
            runnable = self._host.scheduler.round() or self._host.clock.jump()
        except Exception:
            self._guest_failed()
            return True
        self._host.settle()
        for identifier, (call, tid) in list(self._parked.items()):
            if call.done:
                self._finish(identifier, call, tid)
        return runnable

    def _finish(self, identifier: int, call: RunCall, tid: int) -> None:
        """KVM_RUN returns."""
        del self._parked[identifier]
        value = call.result
        if call.error is not None:
            self._host.event("errno", errno=call.error.errno, reason=call.error.reason)
            value = -call.error.errno
        assert value is not None
        self._answer(identifier, tid, value)
        self._tickets.pop(identifier, None)

    def _guest_failed(self) -> None:
        """A guest program raised: its KVM_RUN fails with EIO, the others go on."""
        self.failures += 1
        print("kvmvfio-emu: a guest program failed:", file=sys.stderr)
        traceback.print_exc()
        for identifier, (call, tid) in list(self._parked.items()):
            if call.failed:
                del self._parked[identifier]
                call.interrupt()
                self._answer(identifier, tid, -errno.EIO)
                self._tickets.pop(identifier, None)

    def _look_for_dead(self) -> None:
        """End the calls of threads that were killed, or on old hosts interrupted; looked at every millisecond."""
        now = time.monotonic()
        if now - self._looked < _PARKED_MS / 1000:
            return
        self._looked = now
        for identifier, (call, tid) in list(self._parked.items()):
            if not self._listener.is_waiting(identifier):
                call.interrupt()
                self._finish(identifier, call, tid)

    def _abandon(self) -> None:
        """Everybody is gone: calls in progress end, then what they held is released."""
        for call, _ in self._parked.values():
            call.interrupt()
        self._parked.clear()
        self._host.settle()
