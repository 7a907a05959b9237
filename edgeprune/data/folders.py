"""What a folder holds: splits or classes, whatever they are called, and the image files of each class."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from PIL import Image

from edgeprune.errors import DataError

Role = Literal["train", "test", "validation"]
_WORDS: dict[Role, tuple[str, ...]] = {
    "train": ("train", "training", "trn"),
    "test": ("test", "testing", "tst", "eval", "evaluation", "holdout", "heldout"),
    "validation": ("val", "valid", "validation", "validate", "validating", "dev", "development"),
}
_ROLES = {word: role for role, words in _WORDS.items() for word in words}
_AFFIXES = ("images", "image", "imgs", "img", "data", "dataset", "set", "split", "samples")
_LEFT_OVER = {"__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "@eadir"}
_JPEG = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jp2", ".j2k"}
_PLAIN = {".png", ".apng", ".gif", ".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff"}
_IMAGES = _JPEG | _PLAIN | {".webp", ".avif", ".avifs"}


class NoData(DataError):
    """The data are not there (any more): no folder, or an empty one."""


@dataclass(frozen=True)
class Layout:
    """A folder's own division: `train` and `test` (either may lack), or class folders alone."""

    train: Path | None = None
    test: Path | None = None
    classes: tuple[Path, ...] = ()
    told: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listing:
    """The image files of class folders, with labels as positions in `classes`, and what was left out."""

    root: Path
    classes: tuple[str, ...]
    files: tuple[Path, ...]
    labels: tuple[int, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)

    def told(self) -> list[str]:
        """What was left out, in words."""
        if not self.skipped:
            return []
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.skipped.items()))
        return [f"skipped in {self.root.name}/: {kinds}"]


def role_of(name: str) -> Role | None:
    """The split that a folder's name means in any case: Train, test_set, images-val2017, ...; None for other names."""
    words = [re.sub(r"\d+$", "", word) for word in re.split(r"[^a-z0-9]+", name.lower())]
    found = {role for word in (*words, "".join(words)) if (role := _role_of_word(word)) is not None}
    return found.pop() if len(found) == 1 else None


def _role_of_word(word: str) -> Role | None:
    for affix in ("", *_AFFIXES):
        for bare in (word.removeprefix(affix), word.removesuffix(affix)):
            if bare in _ROLES:
                return _ROLES[bare]
    return None


def layout_of(root: Path, *, named: Iterable[str] = (), labels: Sequence[str] = ()) -> Layout:
    """Find a folder's splits or classes.

    Args:
        root: the folder.
        named: sub-folders that the recipe gives a part to; they are looked at no further.
        labels: the model's class names, where they are known: folders of these names are classes.

    Raises:
        NoData: there is no such folder, or nothing in it.
        DataError: it has no class folders, or what it has looks like splits and cannot be told.
    """
    folders = [folder for folder in visible_folders(root) if folder.name not in set(named)]
    deep = {folder: {one.name for one in visible_folders(folder)} for folder in folders}
    if labels and folders and {folder.name for folder in folders} <= set(labels):
        return Layout(classes=tuple(folders))
    splits = {folder: role for folder in folders if (role := role_of(folder.name)) is not None and deep[folder]}
    if splits:
        return _divided(root, splits, deep)
    if len(folders) == 1 and _is_wrapper(folders[0].name, deep[folders[0]]):
        return layout_of(folders[0], labels=labels)  # photos/images/train, or photos/train/images/cat
    return Layout(classes=tuple(folders), told=_checked_classes(root, deep))


def _is_wrapper(name: str, inner: set[str]) -> bool:
    """Whether the only folder somewhere is no class, and stands for what it holds."""
    return any(role_of(one) for one in inner) or (name.lower() in _AFFIXES and len(inner) > 1)


def visible_folders(root: Path) -> list[Path]:
    """The sub-folders in text order, without hidden ones and those that systems leave behind.

    Raises:
        NoData: there is no such folder.
    """
    if root.is_file():
        known = {".npz": "npz", ".csv": "csv", ".tsv": "csv", ".json": "coco"}.get(root.suffix.lower())
        hint = f"write {known}:{root.name}" if known else "unpack it, and give the folder"
        raise DataError("a file, and no folder of images", where=str(root), hint=hint)
    try:
        return sorted(p for p in root.iterdir() if p.is_dir() and not (_is_left_over(p.name) or _leads_back(p, root)))
    except PermissionError as error:
        raise DataError("the folder may not be read", where=str(root), hint="check its rights") from error
    except OSError as error:
        raise NoData(
            "no such data folder or source",
            where=str(root),
            hint="give a folder with one folder for each class, digits, npz:FILE, csv:FILE, coco:FILE or timm:NAME",
        ) from error


def _leads_back(path: Path, root: Path) -> bool:
    """Whether this is a link to the folder that it lies in, or to one above that: its images would be there twice."""
    return path.is_symlink() and root.resolve().is_relative_to(path.resolve())


def list_classes(root: Path, *, folders: Sequence[Path] = (), labels: Sequence[str] = ()) -> Listing:
    """The image files of a folder's class folders, in text order of their names.

    Raises:
        NoData: there is no such folder, or nothing in it.
        DataError: there are no class folders or one only, a class has no images, or the folders look like splits.
    """
    if not folders:
        layout = layout_of(root, labels=labels)
        if not layout.classes:
            raise DataError(
                "these are no class folders: they are splits",
                where=str(root),
                hint="name one of them, or leave the part out where `source` is this folder",
            )
        folders = layout.classes
    skipped: Counter[str] = Counter()
    if beside := _images_beside(root):
        skipped["images beside the class folders"] = beside
    files: list[Path] = []
    places: list[int] = []
    for place, folder in enumerate(folders):
        found: list[Path] = []
        missed: Counter[str] = Counter()
        _walk(folder, found, missed)
        if not found:
            why = ", ".join(f"{count} {kind}" for kind, count in sorted(missed.items()))
            raise DataError(
                "no images in this class's folder" + (f" that can be read: it has {why}" if why else ""),
                where=str(folder),
                hint="add images; or name all classes in model.labels and remove the folder",
            )
        found.sort()
        files += found
        places += [place] * len(found)
        skipped += missed
    names = tuple(folder.name for folder in folders)
    _check_names(root, names)
    return Listing(root, names, tuple(files), tuple(places), dict(skipped))


def _divided(root: Path, splits: Mapping[Path, Role], deep: Mapping[Path, set[str]]) -> Layout:
    places: dict[Role, Path] = {}
    for folder, role in splits.items():
        if role in places:
            raise DataError(
                f"two folders may be the {role} images: {places[role].name} and {folder.name}",
                where=str(root),
                hint="name one in [data], as train or test, or take the other away",
            )
        places[role] = folder
    told = []
    for folder in deep:
        if folder in splits:
            continue
        if role_of(folder.name) is not None or any(_alike(deep[folder], deep[split]) for split in splits):
            raise DataError(
                f"{folder.name} looks like a split: {', '.join(s.name for s in splits)} beside it hold class folders",
                where=str(root),
                hint="name what is trained and tested on in [data], as train and test (each a folder of class "
                "folders), or take it away",
            )
        told.append(f"not used: {folder.name}/, beside {', '.join(split.name for split in splits)}")
    test = places.get("test") or places.get("validation")
    if "test" in places and "validation" in places:
        told.append(
            f"not used: {places['validation'].name}/, as {places['test'].name}/ is there: validation images are taken "
            "out of training"
        )
    return Layout(train=places.get("train"), test=test, told=tuple(told))


def _checked_classes(root: Path, deep: Mapping[Path, set[str]]) -> tuple[str, ...]:
    """What is worth telling of folders that are to be classes.

    Raises:
        NoData: there are none, and no file either.
        DataError: there are none or one, or they look like splits.
    """
    folders = list(deep)
    if not folders:
        kind = NoData if not any(root.iterdir()) else DataError
        raise kind(
            "the data folder has no class folders", where=str(root), hint="put each class's images into a folder"
        )
    like_splits = [folder for folder in folders if role_of(folder.name) is not None]
    inner = [folder for folder in folders if any(role_of(name) for name in deep[folder])]
    if inner:
        raise DataError(
            f"there are splits within {inner[0].name}: {', '.join(sorted(n for n in deep[inner[0]] if role_of(n)))}",
            where=str(root),
            hint="put the class folders into the splits (train/cat, test/cat), or name the folder that holds the "
            "splits as `source`",
        )
    if like_splits and (len(like_splits) > 1 or len(folders) < 3):
        raise DataError(
            f"{like_splits[0].name} has the name of a split and no class folders in it",
            where=str(root),
            hint="put each class's images into a folder of it; if it is a class, name all classes in model.labels",
        )
    for number, one in enumerate(folders):
        if other := next((two for two in folders[:number] if _alike(deep[one], deep[two])), None):
            raise DataError(
                f"{other.name} and {one.name} look like splits: both hold {', '.join(sorted(deep[one])[:3])}, ...",
                where=str(root),
                hint="name them in [data], as train and test; if they are classes, name all classes in model.labels",
            )
    if len(folders) == 1:
        raise DataError(
            f"only one class is here: {folders[0].name}", where=str(root), hint="a classifier needs two or more"
        )
    return tuple(f"{folder.name} has the name of a split, and is taken for a class" for folder in like_splits)


def _alike(one: set[str], two: set[str]) -> bool:
    """Whether folders hold the same class folders, as the splits of one data set do."""
    common = len(one & two)
    return common >= 2 and 2 * common >= min(len(one), len(two))


def _check_names(root: Path, names: Sequence[str]) -> None:
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            shown = name.encode("utf-8", "backslashreplace").decode()
            raise DataError(
                f"a class's name is not UTF-8: {shown}", where=root.name, hint="rename the folder"
            ) from error


def _is_left_over(name: str) -> bool:
    """Whether editors and systems leave files or folders of this name behind, as copies or caches."""
    return name.startswith(".") or name.lower() in _LEFT_OVER


def _walk(folder: Path, found: list[Path], skipped: Counter[str]) -> None:
    """The files below a folder that can be read as images, and how many others of each kind there are."""
    suffixes, todo = readable(), [folder]
    while todo:
        for entry in _entries(todo.pop()):
            path, is_folder = Path(entry.path), entry.is_dir(follow_symlinks=False)
            if _is_left_over(entry.name):
                count = sum(len(files) for _, _, files in os.walk(path)) if is_folder else 1
                skipped["hidden or left behind by a system (.ipynb_checkpoints, __MACOSX, ._x, Thumbs.db)"] += count
            elif is_folder:
                todo.append(path)
            elif entry.is_symlink() and path.is_dir():
                skipped["links to folders"] += 1
            elif not path.is_file():  # DirEntry's own fails on links that lead in a circle
                skipped["broken links or no files"] += 1
            elif path.suffix.lower() in suffixes:
                found.append(path)
            else:
                skipped[path.suffix.lower() or "without a suffix"] += 1


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(
            f"the folder cannot be read: {error.strerror}", where=str(folder), hint="check its rights, or remove it"
        ) from error


def files_below(folder: Path, *, also: tuple[str, ...] = ()) -> list[Path]:
    """The image files below a folder, and those with one of these other suffixes, in text order."""
    found: list[Path] = []
    suffixes, todo = readable() | set(also), [folder]
    while todo:
        for entry in _entries(todo.pop()):
            path = Path(entry.path)
            if _is_left_over(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                todo.append(path)
            elif path.is_file() and path.suffix.lower() in suffixes:
                found.append(path)
    return sorted(found)


def readable() -> frozenset[str]:
    """Suffixes of the image files that this machine's Pillow decodes."""
    return frozenset(_IMAGES) & Image.registered_extensions().keys()


def _images_beside(root: Path) -> int:
    return sum(1 for p in root.iterdir() if p.suffix.lower() in readable() and p.is_file())
