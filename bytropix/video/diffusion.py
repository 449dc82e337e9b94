"""What the video model is trained on.

    clip, key -> layout, timestep, noise, dropped or not        all of them functions of the key
    frames -> latents -> given: look | targets: less the base -> noised -> predict -> squared error, weighted
    flow of the given frames, where the model has it -> what their latents, moved, miss each other by

A clip's loss is a function of the clip, its key and the weights, so it does not matter with which others it lies in a
batch, on which rank, or how often the run was stopped. Nothing in here waits for the device.

Shapes: B clips, T = F + P frames of a window, C latent channels, h x w latent grid.
"""

import torch
from torch import Tensor, nn

from bytropix.video.autoencoder_loss import AutoencoderLoss
from bytropix.video.flow import warp_loss
from bytropix.video.model import Given, VideoModel, interpolate_places, predict_places
from bytropix.video.noise import fork, keyed_normal, keyed_uniform

BUCKETS = 8  # of timesteps, whose errors are told apart
_CHOICES, _NOISE = 0, 1  # streams of a clip's key


class DiffusionLoss(nn.Module):
    """The loss of clips.

    Args:
        model: What is trained. Where its autoencoder is trained too, its own loss is added; no other gradient comes to
            it, since latents that are diffused and encoded by the same loss collapse.
    """

    layouts_2T: Tensor

    def __init__(self, model: VideoModel) -> None:
        super().__init__()
        self.model = model
        self.reconstruction = AutoencoderLoss(model.autoencoder) if model.joint else None
        layouts = [torch.cat(layout(model.config)) for layout in (predict_places, interpolate_places)]
        self.register_buffer("layouts_2T", torch.stack(layouts), persistent=False)

    def forward(
        self, frames: Tensor, regions: Tensor, motion: Tensor, keys: Tensor, filled: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of each clip, f32 [B], and the errors by timestep.

        Args:
            frames: u8 [B, T, H, W, 3].
            regions: f32 [B, T, R, 4].
            motion: f32 [B, T, M, 4].
            keys: i64 [B], of `clip_keys`.
            filled: bool [B], False for a row that is padding: its loss is 0 and it counts nowhere.

        Returns:
            Beside the losses f32 [BUCKETS, 2]: for each eighth of the timesteps, from little noise to much, the sum of
            the clips' mean squared errors, not weighted, and their number.
        """
        config, schedule = self.model.config, self.model.schedule
        choice, drop, layout = keyed_uniform(fork(keys, _CHOICES), 3).unbind(1)
        t = (choice * schedule.timesteps).long().clamp(max=schedule.timesteps - 1)
        dropped = drop < config.diffusion.condition_dropout
        places_BT = self.layouts_2T[(layout < config.diffusion.interpolation_share).long()]
        given, targets = places_BT[:, : config.given_frames], places_BT[:, config.given_frames :]
        rows = torch.arange(len(frames), device=frames.device)[:, None]
        latents = self.model.encode(frames)
        shown = Given(frames, regions[rows, given], motion[rows, given], given, dropped)
        seen = self.model.see(latents[rows, given], shown)
        with torch.no_grad():
            x0 = self.model.to_diffused(latents[rows, targets], seen, targets)
            noise = keyed_normal(fork(keys, _NOISE), x0.shape[1:])
            x_t, target = schedule.noised(x0, noise, t), schedule.target(x0, noise, t)
        error = self.model.predict(x_t, t, seen, targets).float() - target
        errors_B = torch.where(filled, error.square().flatten(1).mean(1), 0.0)
        losses_B = errors_B * schedule.weights_T[t]
        if seen.flow is not None:
            flow = self.model.config.flow
            missed_B = warp_loss(seen.latents, seen.flow, smoothness=flow.smoothness)
            losses_B = losses_B + flow.weight * torch.where(filled, missed_B, 0.0)
        if self.reconstruction is not None:
            losses_B = losses_B + torch.where(filled, self.reconstruction(frames)[0], 0.0)
        return losses_B, self._tallies(t, errors_B.detach(), filled)

    def _tallies(self, t: Tensor, errors_B: Tensor, filled: Tensor) -> Tensor:
        """Return the sum of errors and the number of filled clips for each bucket, f32 [BUCKETS, 2]."""
        bucket = t * BUCKETS // self.model.schedule.timesteps
        which = (bucket == torch.arange(BUCKETS, device=t.device)[:, None]).float()
        return which @ torch.stack([errors_B, filled.float()], dim=1)
