"""Rendering a whole batch of views where the pixels lie: one `grid_sample` and one product of colours.

On a graphics card the Store can live in its memory as uint8; then nothing but a few matrices is copied for a batch.
"""

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from parfocal.data.augment import View, Views
from parfocal.data.decode import Pixels


def render_batch(pixels: Tensor, views: Views, indices: np.ndarray) -> Tensor:
    """Return what views show of Store images (N, H, W, 3) uint8, as (N, side, side, 3) uint8 on the same device."""
    device, (count, height, width, _) = pixels.device, pixels.shape
    geometry = torch.from_numpy(views.geometry[indices]).to(device, non_blocking=True)
    grid = _sampling_grid(geometry, views.crop_size, height, width)
    channels = pixels.permute(0, 3, 1, 2).float()
    seen = nn.functional.grid_sample(channels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    if views.color is not None:
        matrix = torch.from_numpy(views.color[indices]).to(device, non_blocking=True)
        # The renderer of the CPU rounds between the two steps; so does this, to agree with it.
        flat = seen.round().reshape(count, 3, -1)
        seen = torch.baddbmm(matrix[:, :, 3:], matrix[:, :, :3], flat).reshape(seen.shape)
    out = seen.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    if views.erase_boxes is not None:
        boxes = torch.from_numpy(views.erase_boxes[indices]).to(device, non_blocking=True)
        out[_box_masks(boxes, views.crop_size)] = 0
    return out


def _sampling_grid(geometry: Tensor, crop_size: int, height: int, width: int) -> Tensor:
    """Return for each pixel of each view where it looks, in the −1–1 coordinates of `grid_sample`."""
    axis = torch.arange(crop_size, device=geometry.device, dtype=torch.float32)
    down, across = torch.meshgrid(axis, axis, indexing="ij")
    places = torch.stack([across, down, torch.ones_like(across)], dim=-1).reshape(-1, 3)
    source = places @ geometry.transpose(1, 2)
    size = torch.tensor([width, height], device=geometry.device, dtype=torch.float32)
    return ((2 * source + 1) / size - 1).reshape(len(geometry), crop_size, crop_size, 2)


def _box_masks(boxes: Tensor, crop_size: int) -> Tensor:
    axis = torch.arange(crop_size, device=boxes.device)
    left, top, right, bottom = (edge[:, None] for edge in boxes.unbind(1))
    across, down = (axis >= left) & (axis < right), (axis >= top) & (axis < bottom)
    return down[:, :, None] & across[:, None, :]


def render(image: Pixels, view: View, out: Pixels) -> None:
    """Write what `view` shows of a Store image into `out` (side, side, 3)."""
    # OpenCV warps four channels three times as fast as three, so a fourth goes along and is dropped again.
    seen = cv2.warpAffine(
        cv2.cvtColor(image, cv2.COLOR_RGB2RGBA),
        view.geometry,
        (out.shape[1], out.shape[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
    )
    cv2.cvtColor(seen, cv2.COLOR_RGBA2RGB, dst=out)
    if view.color is not None:
        cv2.transform(out, view.color, dst=out)
    if view.custom_transform is not None:
        out[:] = view.custom_transform(out.copy(), view.seed)
    if view.erase_box is not None:
        left, top, right, bottom = view.erase_box
        out[top:bottom, left:right] = 0


def render_one(image: Pixels, views: Views, index: int) -> Pixels:
    """Return what one of many views shows of a Store image."""
    out = np.empty((views.crop_size, views.crop_size, 3), np.uint8)
    render(image, views[index], out)
    return out
