"""Video runs are scored on every clip once, beside baselines whose errors are known, the same however it is done."""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from bytropix.datasets import ClipBatch
from bytropix.datasets.store import Store
from bytropix.errors import StoreError
from bytropix.jobs.commands.evaluate_video import compare_video
from bytropix.jobs.run_folder import RunFolder
from bytropix.jobs.video_clips import rule_of, table_of
from bytropix.jobs.video_evaluation import BASELINES, COPY, MODEL, Predictor, VideoScores, score_clips, table
from bytropix.jobs.video_recipe import VideoRecipe
from bytropix.pipelines.video.config import VideoConfig
from bytropix.pipelines.video.ingest import ingest_video
from bytropix.video.sampling import SamplingConfig

GIVEN, PREDICTED = 3, 2
QUICK = ("--steps", 2, "--clips", 6, "--batch", 3)
PERFECT = 10 * math.log10(255**2 * 12)


def clips_of(frames: Tensor, *, position: int = 0, empty: int = 0) -> ClipBatch:
    """Return clips u8 [B, T, H, W, 3] as a batch with `empty` rows of padding behind them."""
    rows, count = len(frames) + empty, frames.shape[1]
    whole = torch.cat([frames, frames.new_zeros(empty, *frames.shape[1:])])
    video = torch.tensor([0] * len(frames) + [-1] * empty)
    zeros = torch.zeros(rows, dtype=torch.int64)
    boxes = torch.zeros(rows, count, 2, 4)
    return ClipBatch(
        frames=whole,
        regions=boxes,
        motion=boxes,
        pts=torch.zeros(rows, count, dtype=torch.float64),
        video=video,
        start=zeros,
        step=zeros + 1,
        flipped=zeros.bool(),
        position=position,
        clips=len(frames),
    )


def brightening(step: int, count: int = GIVEN + PREDICTED) -> Tensor:
    """Return a clip u8 [T, 16, 16, 3] that gets brighter by `step` levels a frame."""
    levels = 40 + step * torch.arange(count)
    return levels.to(torch.uint8)[:, None, None, None].expand(-1, 16, 16, 3).contiguous()


def baselines() -> dict[str, Predictor]:
    """Return the baselines alone."""
    return {
        name: lambda batch, of=of: of(batch.frames[:, :GIVEN], PREDICTED)  # type: ignore[misc]
        for name, of in BASELINES.items()
    }


def decibels(error: float) -> float:
    """Return the PSNR of a mean squared error."""
    return 10 * math.log10(255**2 / error)


def test_baselines_on_even_change_are_exact() -> None:
    """Copied, a frame is a step behind and then two; the mean two and three; the line meets what comes."""
    scores = score_clips([clips_of(brightening(6)[None])], baselines(), PREDICTED)

    assert scores.curve(COPY, "psnr") == pytest.approx([decibels(6**2), decibels(12**2)])
    assert scores.curve("mean of given", "psnr") == pytest.approx([decibels(12**2), decibels(18**2)])
    assert scores.curve("linear", "psnr") == pytest.approx([PERFECT, PERFECT])
    assert scores.mean(COPY, "psnr") == pytest.approx((decibels(36) + decibels(144)) / 2)


def test_baselines_on_a_moving_square_are_exact() -> None:
    """A square of 8 pixels that goes 3 to the right leaves 24 pixels and takes 24: that is what copying gets wrong."""
    frames = torch.zeros(1, 5, 32, 32, 3, dtype=torch.uint8)
    for number in range(5):
        frames[0, number, 10:18, 3 * number : 3 * number + 8] = 200
    scores = score_clips([clips_of(frames)], baselines(), PREDICTED)
    wrong = [2 * 8 * 3 * ahead / 32**2 * 200**2 for ahead in (1, 2)]

    assert scores.curve(COPY, "psnr") == pytest.approx([decibels(error) for error in wrong])
    # Going on evenly, pixels that were lit last get white, and those that change next do not know it yet.
    assert scores.curve("linear", "psnr")[0] == pytest.approx(decibels(8 * 3 * (200**2 + 200**2 + 55**2) / 32**2))


def test_a_line_through_one_frame_is_level() -> None:
    """With one given frame, to extrapolate is to copy; brighter than white is white."""
    frames = torch.stack([brightening(90, 3), brightening(-19, 3)])

    assert torch.equal(BASELINES["linear"](frames[:, :1], 2), BASELINES[COPY](frames[:, :1], 2))
    found = BASELINES["linear"](frames, 2)
    assert found[:, :, 0, 0, 0].tolist() == [[255, 255], [0, 0]]


def test_rows_without_a_clip_are_left_out() -> None:
    """Padding is neither scored nor counted; nothing but padding is an error that says so."""
    clip = brightening(6)[None]
    padded = score_clips([clips_of(clip, empty=3)], baselines(), PREDICTED)

    assert padded.clips == 1
    assert padded.curve(COPY, "psnr") == pytest.approx([decibels(36), decibels(144)])
    assert padded.distances == score_clips([clips_of(clip)], baselines(), PREDICTED).distances
    with pytest.raises(StoreError, match="nothing to score"):
        score_clips([clips_of(clip[:0], empty=2)], baselines(), PREDICTED)


def test_figures_are_means_over_frames_whatever_the_batches() -> None:
    """Five clips at once, or two and three, have the same figures; a mean over batches would not."""
    clips = torch.stack([brightening(step) for step in (1, 2, 4, 8, 16)])
    whole = score_clips([clips_of(clips)], baselines(), PREDICTED)
    pieces = score_clips([clips_of(clips[:2]), clips_of(clips[2:], position=2)], baselines(), PREDICTED)

    assert whole.plain() == pieces.plain()
    assert whole.curve(COPY, "psnr")[0] == pytest.approx(np.mean([decibels(step**2) for step in (1, 2, 4, 8, 16)]))


def scored(model: list[float], copied: list[float]) -> VideoScores:
    """Return scores of clips of one predicted frame."""
    frames: Mapping[str, Any] = {
        name: {"psnr": np.array(values)[:, None], "ssim": np.array(values)[:, None] / 100}
        for name, values in ((MODEL, model), (COPY, copied), ("autoencoder", [90.0] * len(model)))
    }
    return VideoScores(frames, {MODEL: 3.0, COPY: 2.0, "autoencoder": 1.0}, "some features")


def test_gain_is_the_mean_of_differences() -> None:
    """Against the same clips, with the standard error of the differences, not of either side."""
    gain, error = scored([30, 24, 40], [28, 23, 37]).gain()

    assert gain == pytest.approx(2)
    assert error == pytest.approx(1 / math.sqrt(3))
    assert math.isnan(scored([30], [28]).gain()[1])


def test_clips_are_ranked_from_the_worst() -> None:
    """The worst comes first in the direction of the metric; equal ones in their order."""
    assert scored([30, 24, 40, 24], [0] * 4).ranked() == [1, 3, 0, 2]


def test_the_star_is_on_the_best_that_could_be_known() -> None:
    """In each column the best of model and baselines is marked, as the metric has it; never the bound."""
    lines = table(scored([30.0], [28.0]), 1).splitlines()
    starred = [line for line in lines if "*" in line]

    assert [line.split()[0] for line in starred] == ["model", "model", "copy"]
    assert all("*" not in line for line in lines if line.startswith("autoencoder"))


@pytest.fixture(scope="module")
def figures(trained_video: Path, clip_store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what the command says of the tiny run, with the pictures it draws."""
    out = tmp_path_factory.mktemp("drawn") / "strip.png"
    run, store = RunFolder(trained_video), Store.open(clip_store_path)
    return compare_video(run, store, split="val", sampling=SamplingConfig(steps=2), at_most=6, batch=4, out=(out,))


def test_the_command_says_it_all(cli: Any, trained_video: Path, clip_store_path: Path) -> None:
    """One JSON object with every predictor, its curve, what the metrics mean and how samples were drawn."""
    found = cli("evaluate", "--run", trained_video, "--store", clip_store_path, *QUICK, "--json").json()

    assert list(found["scores"]) == [MODEL, *BASELINES, "autoencoder"]
    assert found["clips"] == 6
    for metrics in found["scores"].values():
        assert len(metrics["psnr"]["by_frame"]) == found["predicted_frames"] == PREDICTED
        assert metrics["psnr"]["mean"] == pytest.approx(np.mean(metrics["psnr"]["by_frame"]))
        assert metrics["frechet"] >= 0
    firsts = [found["scores"][name]["psnr"]["by_frame"][0] for name in (MODEL, COPY)]
    assert found["next_frame_gain_db"] == pytest.approx(firsts[0] - firsts[1])
    assert found["metrics"]["psnr"]["best_is"] == "highest"
    assert found["metrics"]["frechet"]["best_is"] == "lowest"
    assert found["features"] == "random features, seed 0"
    assert found["sampling"]["steps"] == 2
    assert any("LPIPS" in note for note in found["notes"]) or "lpips" in found["metrics"]


def test_batches_do_not_change_samples(cli: Any, trained_video: Path, clip_store_path: Path) -> None:
    """Scored two at a time, clip by clip or all at once, a run has the same figures to the last digits."""
    words = ("evaluate", "--run", trained_video, "--store", clip_store_path, "--steps", 2, "--clips", 6, "--json")
    two, six = (cli(*words, "--batch", batch, "--rows", rows).json() for batch, rows in ((2, 1), (6, 8)))

    for name in two["scores"]:
        for metric in ("psnr", "ssim"):
            assert two["scores"][name][metric]["by_frame"] == pytest.approx(
                six["scores"][name][metric]["by_frame"], rel=1e-4
            )


def test_every_clip_of_the_split_is_scored_once(cli: Any, trained_video: Path, clip_store_path: Path) -> None:
    """Without --clips there are as many as the split has, none twice."""
    recipe, store = RunFolder(trained_video).recipe(VideoRecipe), Store.open(clip_store_path)
    split = table_of(store, "train", rule_of(recipe, store))
    words = ("--run", trained_video / "autoencoder", "--store", clip_store_path, "--split", "train", "--batch", 7)
    found = cli("evaluate", *words, "--json").json()

    assert split is not None
    assert found["clips"] == split.clips
    assert found["split"] == "train"


def test_an_autoencoder_alone_is_scored_on_what_it_does(cli: Any, trained_video: Path, clip_store_path: Path) -> None:
    """Its own run has no samples to score: reconstruction beside the baselines, and nothing to draw."""
    words = ("evaluate", "--run", trained_video / "autoencoder", "--store", clip_store_path, *QUICK)
    found = cli(*words, "--json").json()

    assert MODEL not in found["scores"]
    assert "next_frame_gain_db" not in found
    assert found["scores"]["autoencoder"]["psnr"]["mean"] > 5
    assert "holds an autoencoder alone" in cli(*words, "--out", "x.png").refusal()


def test_clips_are_drawn(figures: dict[str, Any]) -> None:
    """A strip has a row each for the worst, the median and the best clip: given, true and predicted frames."""
    drawn = figures["drawn"]
    psnr = [drawn["clips"][name]["psnr"] for name in ("worst", "median", "best")]
    with Image.open(drawn["files"][0]) as picture:
        width, height = picture.size

    assert psnr == sorted(psnr)
    side = (height - 2 * 2) // 3  # three rows, two gaps of two pixels
    assert side >= 32
    assert width == (GIVEN + 2 * PREDICTED) * side + 2 * (GIVEN + 2 * PREDICTED - 3) + 2 * 10


def test_clips_are_drawn_as_a_film(cli: Any, trained_video: Path, clip_store_path: Path, tmp_path: Path) -> None:
    """A film has as many pictures as a clip has frames, of even sides."""
    out = tmp_path / "three.mp4"
    said = cli("evaluate", "--run", trained_video, "--store", clip_store_path, *QUICK, "--out", out).out
    with av.open(str(out)) as film:
        pictures = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]

    assert len(pictures) == GIVEN + PREDICTED
    assert all(side % 2 == 0 for side in pictures[0].shape[:2])
    assert f"drawn: {out}, from above: worst" in said
    assert "dB of PSNR against 'copy last frame'" in said


def test_maps_that_the_model_was_not_made_for_are_made_anew(
    cli: Any, trained_video: Path, clip_store_path: Path, tmp_path: Path
) -> None:
    """A store with other regions is scored with the model's own, as it is in its own size, and the report says so."""
    films = clip_store_path.parent / "films"
    other = ingest_video([films], tmp_path / "other.bx", VideoConfig(size=(28, 32), clip_frames=8, val_fraction=0.2))
    found = cli("evaluate", "--run", trained_video, "--store", other.store.path, *QUICK, "--json").json()

    assert any("region maps are made anew from the frames (hybrid, 4 regions" in note for note in found["notes"])
    assert "frames are 32 x 28; the run was trained on 32 x 32" in found["notes"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--stride", 4), "--stride means nothing"),
        (("--split", "tset"), "split 'tset' holds no videos (splits: train, val)"),
        (("--out", "x.tiff"), "--out x.tiff: the name must end in one of"),
        (("--steps", 5000), "steps must be at most"),
        (("--batch", 0), "--batch must be at least 1"),
        (("--encoder", "none.safetensors"), "--encoder none.safetensors: not a safetensors file"),
    ],
)
def test_flags_that_cannot_work_are_one_line(
    cli: Any, trained_video: Path, clip_store_path: Path, flags: tuple[object, ...], message: str
) -> None:
    """Each is named, with its value and what would work."""
    assert message in cli("evaluate", "--run", trained_video, "--store", clip_store_path, *flags).refusal()


def test_kinds_that_do_not_fit_are_one_line(cli: Any, trained: Path, trained_video: Path, store_path: Path) -> None:
    """A video run on a store of bytes, and a flag of video on a run of bytes."""
    said = cli("evaluate", "--run", trained_video, "--store", store_path).refusal()
    assert "a store of bytes, not of video" in said
    for flags in (("--clips", 3), ("--guidance", 2), ("--out", "x.png")):
        said = cli("evaluate", "--run", trained, "--store", store_path, *flags).refusal()
        assert "means nothing for" in said


def test_the_mean_weights_are_scored(trained_video: Path, clip_store_path: Path, tmp_path: Path) -> None:
    """The running mean of the weights predicts, not the last weights: put in its place, these have other figures."""
    run = RunFolder(Path(shutil.copytree(trained_video, tmp_path / "run")))
    means, last = (load_file(run.latest() / name) for name in ("ema.safetensors", "model.safetensors"))
    sampling = SamplingConfig(steps=2, guidance=1.0)

    def figure() -> float:
        found = compare_video(run, Store.open(clip_store_path), split="val", sampling=sampling, at_most=2, batch=2)
        return float(found["scores"][MODEL]["psnr"]["mean"])

    before = figure()
    save_file({name: last[name] for name in means}, run.latest() / "ema.safetensors")
    assert figure() != before
