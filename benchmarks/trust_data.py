"""The cases of data: order and names of classes, splits, leaks, pixels, damaged files (points 1 to 5, 7, 8 and 16)."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from trust_net import (
    CLASSES,
    NAMES,
    NUMBERED,
    PASS,
    REFUSED,
    SIDE,
    UNDECIDED,
    Base,
    Case,
    draw,
    draw_folder,
)

Images = Callable[[Path], object]
EITHER = (PASS, REFUSED)
GREY = 0.25  # without colours a third is right; of white images a twelfth


def data_cases(base: Base) -> list[Case]:
    def with_images(make: Images, **sections: Any) -> Callable[[Path], list[object]]:
        def written(folder: Path) -> list[object]:
            make(folder / "images")
            return base.recipe(folder, **sections)

        return written

    def case(
        point: int, name: str, make: Images, ends: tuple[int, ...], accuracy: float = 0.0, **sections: Any
    ) -> Case:
        return Case(point, name, with_images(make, **sections), ends, accuracy)

    def npz(**arrays: Any) -> Callable[[Path], list[object]]:
        def written(folder: Path) -> list[object]:
            np.savez(folder / "data.npz", **arrays)
            return base.recipe(folder, data={"source": "npz:data.npz"})

        return written

    labelled = {"model": {"labels": list(NUMBERED)}}
    return [
        case(1, "numbered folders, no labels", numbered, (REFUSED,)),
        case(1, "numbered folders, labels in the recipe", numbered, (PASS,), 0.95, **labelled),
        case(1, "numbered folders, labels that lack one", numbered, (REFUSED,), model={"labels": list(NUMBERED[:-1])}),
        case(1, "the same through timm, no labels", numbered, (REFUSED,), data={"source": "timm:@images"}),
        case(1, "the same through timm, labels", numbered, (PASS,), 0.95, data={"source": "timm:@images"}, **labelled),
        case(2, "a class without a folder", without_one, (REFUSED,)),
        case(2, "a class without a folder, labels", without_one, (PASS,), 0.95, model={"labels": list(NAMES)}),
        case(2, "three folders for twelve classes", few_classes, (REFUSED,)),
        case(3, "Training and Testing", split_as("Training", "Testing"), (PASS,), 0.95),
        case(3, "train_set and test_set", split_as("train_set", "test_set"), (PASS,), 0.95),
        case(3, "TRAIN and Val", split_as("TRAIN", "Val"), (PASS,), 0.95),
        case(
            3,
            "folds of the same classes",
            split_as("fold_a", "fold_b"),
            (REFUSED,),
            model={"arguments": {"classes": 2}},
        ),
        case(4, "the test folder is a link to the training folder", linked, (REFUSED,)),
        case(4, "the test folder is a copy of the training folder", copied, (REFUSED,)),
        case(4, "a copy with other file names", copied_under_other_names, (REFUSED,)),
        case(4, "the test folder is within the training folder", split_as("train", "train/test"), (REFUSED,)),
        case(4, "timm's train and test", split_as("train", "test"), (PASS,), 0.95, data={"source": "timm:@images"}),
        case(5, "grey PNG and TIFF of 16 bits", sixteen_bits, EITHER, GREY),
        case(5, "float TIFF", float_tiff, EITHER, GREY),
        case(5, "EXIF orientation", turned, (PASS,), 0.95),
        case(5, "CMYK JPEG", cmyk, EITHER, 0.8),
        case(5, "palettes with transparency", palettes, EITHER, 0.9),
        case(5, "jfif and avif beside png", odd_suffixes, EITHER, 0.95),
        case(5, "copies in .ipynb_checkpoints", with_checkpoints, EITHER, 0.95),
        case(7, "random weights, nothing said", ordinary, (REFUSED,), model={"checkpoint": None}),
        case(7, "normalization of ImageNet on a net without", ordinary, EITHER, 0.95, model=IMAGENET),
        Case(7, "blue and red exchanged", lambda folder: swapped(base, folder), (REFUSED,)),
        case(8, "eight test images", ordinary, (UNDECIDED,), verify={"images": 8}, quantize={"enabled": True}),
        case(16, "one image a class", lambda root: draw_folder(root, NAMES, 1, seed=5), (REFUSED, UNDECIDED)),
        case(16, "a truncated image", truncated, (REFUSED,)),
        case(16, "an image above Pillow's limit", huge_image, (REFUSED,)),
        case(16, "a text file named .png", text_as_png, (REFUSED,)),
        Case(16, "a .npy named .npz", lambda folder: npy_as_npz(base, folder), (REFUSED,)),
        Case(16, "an .npz that unpacks to a terabyte", lambda folder: bomb(base, folder), (REFUSED,)),
        Case(16, "labels of 2^40", npz(train_images=blank(4), train_labels=np.array([0, 1, 2**40, 3])), (REFUSED,)),
        Case(
            16, "height 0", npz(train_images=np.zeros((4, 0, 32, 3), np.uint8), train_labels=np.arange(4)), (REFUSED,)
        ),
        Case(16, "labels in a column", npz(train_images=blank(4), train_labels=np.arange(4)[:, None]), EITHER),
        Case(16, "channels before height", npz(train_images=blank(24).transpose(0, 3, 1, 2), **numbers()), (REFUSED,)),
        Case(
            16, "one-hot labels", npz(train_images=blank(24), train_labels=np.eye(12)[np.arange(24) % 12]), (REFUSED,)
        ),
        Case(16, "labels from 1", npz(train_images=blank(24), **numbers(first=1)), (REFUSED,)),
        Case(16, "labels that are times", npz(train_images=blank(24), **numbers("m8[s]")), (REFUSED,)),
        case(1, "labels in a JSON object", labelled_by('{"1": 0, "2": 1}'), (REFUSED,), model={"labels": "labels.txt"}),
        case(1, "labels in UTF-16", labelled_by("1\n2\n", "utf-16"), (REFUSED,), model={"labels": "labels.txt"}),
        case(1, "accents in two forms", accents, (REFUSED,), model={"labels": [f"\u00e9{n}" for n in NUMBERED]}),
        case(3, "train/images and test/images", split_as("train/images", "test/images"), (PASS,), 0.95),
        case(4, "hard links from test to train", hard_linked, (REFUSED,)),
        case(5, "12 bits in 16", twelve_bits, (REFUSED,)),
        case(7, "mean and std of 0 to 255", ordinary, (REFUSED,), model={"mean": [124, 116, 104], "std": [58, 57, 57]}),
        case(16, "PostScript named .png", postscript, (REFUSED,)),
        case(16, "Git LFS pointers", with_file("a.png", b"version https://git-lfs.github.com/spec/v1\n"), (REFUSED,)),
        case(16, "links that lead in a circle", circles, (PASS,), 0.95),
        Case(16, "no images at all", npz(train_images=blank(0), train_labels=np.zeros(0, np.int64)), (REFUSED,)),
    ]


def numbers(dtype: str = "int64", *, first: int = 0) -> dict[str, Any]:
    return {"train_labels": (np.arange(24) % CLASSES + first).astype(dtype)}


IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def blank(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.zeros((count, SIDE, SIDE, 3), np.uint8)


def ordinary(root: Path) -> None:
    draw_folder(root, NAMES, 40, seed=3)


def numbered(root: Path) -> None:
    draw_folder(root, NUMBERED, 40, seed=2)


def labelled_by(text: str, encoding: str = "utf-8") -> Images:
    def make(root: Path) -> None:
        numbered(root)
        root.with_name("labels.txt").write_text(text, encoding=encoding)

    return make


def accents(root: Path) -> None:
    draw_folder(root, [f"e\u0301{name}" for name in NUMBERED], 20, seed=2)


def hard_linked(root: Path) -> None:
    draw_folder(root / "train", NAMES, 20, seed=5)
    shutil.copytree(root / "train", root / "test", copy_function=os.link)


def twelve_bits(root: Path) -> None:
    _saved(root, lambda image, path: Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 16).save(path))


def with_file(name: str, content: bytes) -> Images:
    def make(root: Path) -> None:
        ordinary(root)
        (root / NAMES[0] / name).write_bytes(content)

    return make


def postscript(root: Path) -> None:
    ordinary(root)
    Image.new("RGB", (32, 32)).save(root / NAMES[0] / "photo.eps")
    (root / NAMES[0] / "photo.eps").rename(root / NAMES[0] / "photo.png")


def circles(root: Path) -> None:
    ordinary(root)
    (root / NAMES[0] / "me.png").symlink_to("me.png")
    (root / NAMES[0] / "up").symlink_to("..")
    (root / "all").symlink_to(".")


def without_one(root: Path) -> None:
    ordinary(root)
    shutil.rmtree(root / NAMES[3])


def few_classes(root: Path) -> None:
    draw_folder(root, NAMES[:3], 60, seed=3)


def split_as(train: str, test: str) -> Images:
    def make(root: Path) -> None:
        draw_folder(root / train, NAMES, 30, seed=5)
        draw_folder(root / test, NAMES, 15, seed=6)

    return make


def linked(root: Path) -> None:
    draw_folder(root / "train", NAMES, 20, seed=5)
    (root / "test").symlink_to(root.resolve() / "train")


def copied(root: Path) -> None:
    draw_folder(root / "train", NAMES, 20, seed=5)
    shutil.copytree(root / "train", root / "test")


def copied_under_other_names(root: Path) -> None:
    copied(root)
    for number, path in enumerate(sorted((root / "test").rglob("*.png"))):
        path.rename(path.with_name(f"other{number}.png"))


def sixteen_bits(root: Path) -> None:
    """A decoder that clips makes all of them white."""
    random = np.random.default_rng(3)
    for label, name in enumerate(NAMES):
        (root / name).mkdir(parents=True)
        for number in range(30):
            grey = np.asarray(Image.fromarray(draw(label, random)).convert("L")).astype(np.uint16) * 257
            Image.fromarray(grey).save(root / name / f"{number}.{'png' if number % 2 else 'tiff'}")


def float_tiff(root: Path) -> None:
    random = np.random.default_rng(3)
    for label, name in enumerate(NAMES):
        (root / name).mkdir(parents=True)
        for number in range(30):
            grey = np.asarray(Image.fromarray(draw(label, random)).convert("L")).astype(np.float32) / 255
            Image.fromarray(grey).save(root / name / f"{number}.tiff")


def turned(root: Path) -> None:
    random = np.random.default_rng(4)
    for label, name in enumerate(NAMES):
        (root / name).mkdir(parents=True)
        for number in range(30):
            image = Image.fromarray(draw(label, random)).transpose(Image.Transpose.ROTATE_90)
            exif = image.getexif()
            exif[0x0112] = 6
            image.save(root / name / f"{number}.jpg", exif=exif, quality=95)


def cmyk(root: Path) -> None:
    _saved(root, lambda image, path: image.convert("CMYK").save(path.with_suffix(".jpg"), quality=95))


def palettes(root: Path) -> None:
    _saved(root, lambda image, path: image.convert("P").save(path, transparency=bytes([255] * 255 + [0])))


def odd_suffixes(root: Path) -> None:
    ordinary(root)
    random = np.random.default_rng(8)
    for label, name in enumerate(NAMES):
        Image.fromarray(draw(label, random)).save(root / name / "one.jfif", "JPEG", quality=95)
        (root / name / "two.heic").write_bytes(b"\0\0\0\x18ftypheic")


def with_checkpoints(root: Path) -> None:
    ordinary(root)
    for name in NAMES:
        (root / name / ".ipynb_checkpoints").mkdir()
        for path in sorted((root / name).glob("*.png"))[:5]:
            shutil.copy(path, root / name / ".ipynb_checkpoints" / path.name)


def truncated(root: Path) -> None:
    ordinary(root)
    path = min((root / NAMES[5]).iterdir())
    path.write_bytes(path.read_bytes()[:600])


def huge_image(root: Path) -> None:
    ordinary(root)
    Image.new("1", (20_000, 20_000)).save(root / NAMES[0] / "huge.png")


def text_as_png(root: Path) -> None:
    ordinary(root)
    (root / NAMES[0] / "note.png").write_text("not an image")


def swapped(base: Base, folder: Path) -> list[object]:
    draw_folder(folder / "images", NAMES, 40, seed=3)
    code = f"import sys\nsys.path.insert(0, {str(base.net.parent)!r})\nfrom net import Net\n\n\nclass Swapped(Net):\n"
    code += (
        "    def forward(self, x):\n        return super().forward(x.flip(1))\n\n\ndef make():\n    return Swapped()\n"
    )
    (folder / "swapped.py").write_text(code)
    return base.recipe(folder, model={"factory": "swapped.py:make"})


def npy_as_npz(base: Base, folder: Path) -> list[object]:
    with (folder / "data.npz").open("wb") as handle:
        np.save(handle, np.zeros((3, 3)))
    return base.recipe(folder, data={"source": "npz:data.npz"})


def bomb(base: Base, folder: Path) -> list[object]:
    """A header that says 2^40 bytes of images, and few of them."""
    header = np.lib.format.header_data_from_array_1_0(blank(1)) | {"shape": (2**28, SIDE, SIDE, 3)}
    with zipfile.ZipFile(folder / "data.npz", "w") as archive:
        with archive.open("train_images.npy", "w") as member:
            np.lib.format.write_array_header_1_0(member, header)
            member.write(bytes(1000))
        with archive.open("train_labels.npy", "w") as member:
            np.lib.format.write_array(member, np.arange(CLASSES))
    return base.recipe(folder, data={"source": "npz:data.npz"})


def _saved(root: Path, save: Callable[[Image.Image, Path], None]) -> None:
    random = np.random.default_rng(4)
    for label, name in enumerate(NAMES):
        (root / name).mkdir(parents=True)
        for number in range(30):
            save(Image.fromarray(draw(label, random)), root / name / f"{number}.png")
