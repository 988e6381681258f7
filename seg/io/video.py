"""AVI, MP4 and MOV through PyAV, one frame at a time."""

from __future__ import annotations

import bisect
import threading
from pathlib import Path
from typing import Any

import numpy as np

from seg.errors import DataError
from seg.io.arrays import check_size
from seg.io.content import head
from seg.io.reading import NOTHING, Given, Raw, assemble, guarded
from seg.stack import Stack

SUFFIXES = (".avi", ".mp4", ".mov", ".m4v")
NAME = "video"
_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")


def can_open(path: Path) -> bool:
    """Whether the file starts like an AVI or an MP4 / QuickTime film."""
    data = head(path, 12)
    return (data[:4] == b"RIFF" and data[8:12] == b"AVI ") or data[4:8] in _ATOMS


def read(path: Path, given: Given = NOTHING) -> Stack:
    """Open a video.

    Returns
    -------
    Stack
        Axes tyx, or tcyx when it has colour (a lazy colour video keeps c even if its channels should be equal).
        Frame times stay *unknown*: those in the file say how fast to play it, and films of experiments are nearly
        always time lapses. Give ``--frame-interval`` or a sidecar; what the file says is kept in
        ``metadata["playback_interval_s"]``.
    """
    return guarded(path, lambda: assemble(path, _open(path), given))


def _open(path: Path) -> Raw:
    frames = VideoFrames(path)
    metadata: dict[str, Any] = {}
    if frames.playback_interval_s is not None:
        metadata["playback_interval_s"] = frames.playback_interval_s
    return Raw(frames, "tyxc"[: len(frames.shape)], metadata=metadata, close=frames.close)


class VideoFrames:
    """The frames of a video as a lazy array, shape (T, Y, X) or (T, Y, X, 3).

    Reading forwards decodes each frame once; a jump seeks to the key frame before it.
    """

    def __init__(self, path: Path) -> None:
        import av

        self._path = path
        self._lock = threading.Lock()
        self._container = av.open(str(path))
        try:
            if not self._container.streams.video:
                raise DataError(f"{path.name!r} holds no video track.")
            self._stream = self._container.streams.video[0]
            self._stamps = self._index()
            self._format = self._pixel_format()
        except BaseException:
            self._container.close()
            raise
        height, width = self._stream.codec_context.height, self._stream.codec_context.width
        grey = self._format.startswith("gray")
        self.shape = (len(self._stamps), height, width) if grey else (len(self._stamps), height, width, 3)
        check_size(self.shape, path.name)
        self.dtype = np.dtype(np.uint16 if self._format in ("gray16le", "rgb48le") else np.uint8)
        rate = self._stream.average_rate
        self.playback_interval_s = float(1 / rate) if rate else None
        self._position = 0
        self._decoded: Any = None

    def close(self) -> None:
        """Close the file."""
        self._decoded = None
        self._container.close()

    def __getitem__(self, key: tuple[Any, ...]) -> np.ndarray:
        frames, *rest = key
        wanted = range(len(self._stamps))[frames] if isinstance(frames, slice) else [frames]
        with self._lock:
            part = [self._frame(index)[tuple(rest)] for index in wanted]
        if not part:
            return np.empty((0, *np.empty(self.shape[1:], np.uint8)[tuple(rest)].shape), self.dtype)
        return np.stack(part) if isinstance(frames, slice) else part[0]

    def _index(self) -> list[int]:
        """Presentation time stamps of all frames, in order, from the packets alone."""
        stamps: list[int] = []
        for packet in self._container.demux(self._stream):
            if packet.size == 0 or packet.is_discard:
                continue
            if packet.is_corrupt:
                raise DataError(f"{self._path.name!r} is damaged or cut off after frame {len(stamps)}.")
            stamp = packet.pts if packet.pts is not None else packet.dts
            if stamp is None:
                raise DataError(f"{self._path.name!r} has frames without time stamps; convert it to MP4 or AVI again.")
            stamps.append(stamp)
        declared = self._stream.frames
        if not stamps:
            raise DataError(f"{self._path.name!r} holds no video frames.")
        if declared > len(stamps):
            raise DataError(
                f"{self._path.name!r} declares {declared} frames but holds {len(stamps)}; it is cut off, copy it again."
            )
        return sorted(stamps)

    def _pixel_format(self) -> str:
        """What frames are converted to: grey stays grey, more than 8 bits stay 16."""
        pixel_format = self._stream.codec_context.format
        if pixel_format is None:
            raise DataError(f"{self._path.name!r} has a damaged header: its pixel format is unknown.")
        deep = max(component.bits for component in pixel_format.components) > 8
        if len(pixel_format.components) == 1 and not pixel_format.has_palette:
            return "gray16le" if deep else "gray"
        return "rgb48le" if deep else "rgb24"

    def _frame(self, index: int) -> np.ndarray:
        stamp = self._stamps[index]
        if self._decoded is None or index != self._position:
            self._container.seek(stamp, stream=self._stream, backward=True)
            self._decoded = self._container.decode(self._stream)
        for frame in self._decoded:
            found = frame.pts if frame.pts is not None else frame.dts
            if found is None or found < stamp:
                continue
            if found != stamp or frame.is_corrupt:
                break
            if (frame.height, frame.width) != self.shape[1:3]:
                break
            self._position = index + 1
            return frame.to_ndarray(format=self._format)
        self._decoded = None
        where = bisect.bisect_left(self._stamps, stamp)
        raise DataError(f"Frame {where} of {self._path.name!r} cannot be decoded; the video is damaged or cut off.")
