"""The file of a checkpoint: what it is, and its tree of tensors, without executing anything."""

from __future__ import annotations

import argparse
import json
import pathlib
import pickle
import shlex
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError

from edgeprune.errors import ModelError
from edgeprune.plain import shown
from edgeprune.runs import read_bounded

_HEAD = 512
# What training scripts keep beside the weights, and what building it cannot do more than hold: timm's `args`,
# Lightning's paths and hyperparameters, numpy's scalars.
_HARMLESS: tuple[Callable[..., Any] | tuple[Callable[..., Any], str], ...] = (
    argparse.Namespace,
    pathlib.PosixPath,
    pathlib.PurePosixPath,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u1", "?")),
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]  # as numpy 1 wrote it
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
    np.ndarray,
    (np._core.multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),  # type: ignore[attr-defined]
    np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
)
_COMMAND = (
    'import torch; w = torch.load({old}, map_location="cpu", weights_only=False); t = torch.is_tensor; '
    "w = w if isinstance(w, dict) else dict(state_dict=w); "
    "w = dict((k, v.state_dict() if isinstance(v, torch.nn.Module) else v) for k, v in w.items()); "
    "torch.save(dict((k, v) for k, v in w.items() if t(v) or isinstance(v, (int, float)) "
    "or (isinstance(v, dict) and len(v) and all(map(t, v.values())))), {new})"
)
_JIT = 'import torch; torch.save(torch.jit.load({old}, map_location="cpu").state_dict(), {new})'


def read_tree(path: Path) -> Any:
    """What a checkpoint holds, on the CPU: a safetensors file, or what torch reads with `weights_only`.

    What the file is counts, not what it is called.

    Raises:
        ModelError: the file is missing, broken, something else than a checkpoint (which is named), or would have to be
            unpickled by running its code (the hint is a command that converts it).
    """
    path = Path(path)
    if path.is_dir():
        raise ModelError("a folder, not a checkpoint", where=str(path), hint="name the file with the weights in it")
    if not path.is_file():
        raise ModelError("no such checkpoint", where=str(path), hint="check the path of `checkpoint`")
    if path.name.endswith(".index.json"):
        return _read_shards(path)
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if _is_safetensors(head, path.stat().st_size):
        return _read_safetensors(path)
    _refuse_what_it_is_not(path, head)
    return _read_torch(path)


def _lies_beside(name: Any) -> bool:
    """Whether a name in an index is that of a file beside it, and of none that is an index again."""
    bare = isinstance(name, str) and name == Path(name).name and "\0" not in name
    return bare and not name.endswith(".index.json")


def _read_shards(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a model that is stored in several files, by the index that lies beside them."""
    hint = "an index names the file of each tensor (weight_map), and lies beside these files"
    try:
        files = set(json.loads(read_bounded(path))["weight_map"].values())
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ModelError("not an index of a checkpoint's files", where=str(path), hint=hint) from error
    if strange := [name for name in files if not _lies_beside(name)]:
        raise ModelError(f"the index names no file beside it: {shown(strange[0])}", where=str(path), hint=hint)
    found: dict[str, torch.Tensor] = {}
    for name in sorted(files):
        part = read_tree(path.with_name(name))
        found |= part if isinstance(part, dict) else {}
    return found


def _is_safetensors(head: bytes, size: int) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= max(size, 1 << 20)


def _refuse_what_it_is_not(path: Path, head: bytes) -> None:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    again = "download it again, and look at what the address answers"
    known = (
        (not head, "an empty file", again),
        (text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")), "a web page", again),
        (text.startswith(b"version https://git-lfs"), "a Git LFS pointer, not the file it stands for", "git lfs pull"),
        (head[4:8] == b"TFL3", "a .tflite file", ""),
        (head[4:6] == b"ET", "an ExecuTorch program", ""),
        (head[:1] == b"\x08" and head[2:3] in b"\x12\x1a\x22\x3a" and head[1:2] < b"\x20", "an ONNX file", ""),
        (head.startswith(b"\x89HDF"), "an HDF5 file (Keras)", ""),
        (head.startswith(b"\x93NUMPY"), "a NumPy array", ""),
        (head.startswith(b"\x1f\x8b"), "a gzip archive", "unpack it first"),
        (head[257:262] == b"ustar", "a tar archive", "unpack it first"),
        (text.startswith((b"{", b"[")), "a text file (JSON)", again),
        (path.suffix == ".safetensors" and head[:2] != b"PK", "not a whole safetensors file", "copy it again"),
    )
    for holds, what, advice in known:
        if holds:
            raise ModelError(
                f"this is no checkpoint: {what}" if not what.startswith("not") else what,
                where=str(path),
                hint=advice or "give a checkpoint of the model's weights: a .safetensors file, or a state dict",
            )
    if head.startswith(b"PK"):
        _refuse_other_archives(path)


def _refuse_other_archives(path: Path) -> None:
    """torch's files are zip archives with a `data.pkl`; others are named."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ModelError(
            f"torch cannot read this checkpoint: it is cut off or broken ({error})",
            where=str(path),
            hint="copy it again",
        ) from error
    if any(name.endswith("/constants.pkl") for name in names):
        raise ModelError(
            "a torch.jit archive holds a program, not a state dict",
            where=str(path),
            hint=f"where you trust it, take its weights out once: {_command(_JIT, path)}",
        )
    if not any(name.endswith("data.pkl") for name in names):
        kind = "a NumPy archive (.npz)" if names and all(n.endswith(".npy") for n in names) else "a zip archive"
        held = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") or "nothing"
        raise ModelError(
            f"this is no checkpoint: {kind} that holds {held}",
            where=str(path),
            hint="unpack it, or give the file in it",
        )


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return dict(safetensors.torch.load_file(str(path)))
    except SafetensorError as error:
        raise ModelError(f"not a whole safetensors file: {error}", where=str(path), hint="copy it again") from error


def _read_torch(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(list(_HARMLESS)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not _is_pickle(path):
            raise ModelError(
                "torch cannot read this checkpoint: it is broken, or none",
                where=str(path),
                hint="copy it again, or save it as .safetensors",
            ) from error
        raise ModelError(
            "this checkpoint is a pickle that holds more than tensors (a whole model, say); pickles are never executed "
            "here",
            where=str(path),
            hint="where you trust it, convert it once, in the folder of the code that wrote it: "
            f"{_command(_COMMAND, path)}",
        ) from error
    except Exception as error:  # a damaged file may raise anything
        raise ModelError(
            f"torch cannot read this checkpoint: {str(error).splitlines()[0] if str(error) else error!r}",
            where=str(path),
            hint="it is broken or no torch checkpoint; copy it again, or save it as .safetensors",
        ) from error


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def _command(code: str, path: Path) -> str:
    new = path.with_name(f"{path.stem}.weights.pt")
    python = "python" if shutil.which("python") == sys.executable else shlex.quote(sys.executable)
    return f"{python} -c {shlex.quote(code.format(old=json.dumps(str(path)), new=json.dumps(str(new))))}"
