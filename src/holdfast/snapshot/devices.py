"""From a device's memory to the host image: on a stream of its own, into pinned memory, without waiting.

The copy starts behind everything that the device has been given to do; the device's next work on these
tensors is held back, on the device, by ``hold``; the host never waits but where it reads the image.
Written after the CUDA programming guide's section on asynchronous copies ("page-locked host memory").
"""

from __future__ import annotations

from typing import Any

import torch

_streams: dict[torch.device, Any] = {}


class Crossing:
    """The copies of one save from one or more CUDA devices."""

    def __init__(self, image: torch.Tensor) -> None:
        """Nothing is copied yet; ``image`` is the host memory as bytes."""
        self._image = image
        self._side: dict[torch.device, Any] = {}  # the events behind the copies that may take their time
        self._events: list[Any] = []
        self._sources: list[torch.Tensor] = []  # alive until the copy is made

    def begin(self, source: torch.Tensor, offset: int, *, later: bool) -> None:
        """Begin to copy a device's bytes to this offset of the image; other devices than CUDA's at once.

        Args:
            source: the bytes.
            offset: where they belong.
            later: whether the device may go on meanwhile, until ``hold``.

        """
        target = self._image[offset : offset + source.numel()]
        if source.device.type != "cuda":
            target.copy_(source)
            return
        pin(self._image)
        current = torch.cuda.current_stream(source.device)
        stream = current
        if later:
            stream = _stream(source.device)
            if source.device not in self._side:
                stream.wait_stream(current)
            source.record_stream(stream)
        with torch.cuda.stream(stream):
            target.copy_(source, non_blocking=True)
        self._sources.append(source)
        event = stream.record_event()
        self._events.append(event)
        if later:
            self._side[source.device] = event

    def hold(self) -> None:
        """Have what the devices are given from now on wait, there, until the copies are made."""
        for device, event in self._side.items():
            torch.cuda.current_stream(device).wait_event(event)

    def wait(self) -> None:
        """Wait, here, until the copies are made."""
        for event in self._events:
            event.synchronize()
        self._sources.clear()


def _stream(device: torch.device) -> Any:
    if device not in _streams:
        _streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return _streams[device]


def pin(image: torch.Tensor) -> None:
    """Lock host memory in place, once: only then do devices copy into it at full speed, and alone."""
    if image.is_pinned():
        return
    error = torch.cuda.cudart().cudaHostRegister(image.data_ptr(), image.numel(), 0)  # type: ignore[no-untyped-call]
    if int(error):
        msg = f"the image of {image.numel()} bytes could not be pinned: CUDA error {int(error)}"
        raise MemoryError(msg)


def unpin(image: torch.Tensor) -> None:
    """Let go of pinned memory before it is given back."""
    if image.numel() and torch.cuda.is_available() and image.is_pinned():
        torch.cuda.cudart().cudaHostUnregister(image.data_ptr())  # type: ignore[no-untyped-call]
