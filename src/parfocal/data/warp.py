"""Rendering views: an affine warp and a color matrix, image by image on the CPU, or a whole batch on the GPU."""

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from parfocal.data.augment import View, Views
from parfocal.data.decode import Pixels


def render_one(image: Pixels, views: Views, index: int) -> Pixels:
    """Return what the view with this index shows of a Store image."""
    out = np.empty((views.crop_size, views.crop_size, 3), np.uint8)
    render(image, views[index], out)
    return out


def render(image: Pixels, view: View, out: Pixels) -> None:
    """Write what `view` shows of a Store image into `out` (crop_size, crop_size, 3)."""
    # OpenCV warps four channels three times as fast as three, so a fourth channel is added and dropped again.
    warped = cv2.warpAffine(
        cv2.cvtColor(image, cv2.COLOR_RGB2RGBA),
        view.geometry,
        (out.shape[1], out.shape[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
    )
    cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB, dst=out)
    if view.color is not None:
        cv2.transform(out, view.color, dst=out)
    if view.custom_transform is not None:
        out[:] = view.custom_transform(out.copy(), view.seed)
    if view.erase_box is not None:
        left, top, right, bottom = view.erase_box
        out[top:bottom, left:right] = 0


def resize(image: Pixels, side: int) -> Pixels:
    """Return a square image with another side, antialiased where it shrinks; the same image if it has that side."""
    if image.shape[0] == side:
        return image
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)


def resize_batch(pixels: Tensor, side: int) -> Tensor:
    """Resize a batch of square Store images (N, height, width, 3) as `resize` does, on the device that holds it."""
    if pixels.shape[1] == side:
        return pixels
    images = pixels.permute(0, 3, 1, 2).float()
    resized = nn.functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def render_batch(pixels: Tensor, views: Views, indices: np.ndarray) -> Tensor:
    """Render the views with these indices of a batch of Store images, on the device that holds the images.

    `pixels` is uint8 (N, height, width, 3), the result uint8 (N, crop_size, crop_size, 3). When the Store lies in GPU
    memory, only the matrices of a batch are copied to the GPU.
    """
    device = pixels.device
    n_images, height, width, _ = pixels.shape
    geometry = torch.from_numpy(views.geometry[indices]).to(device, non_blocking=True)
    grid = _sampling_grid(geometry, views.crop_size, height, width)
    images = pixels.permute(0, 3, 1, 2).float()
    images = nn.functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    if views.color is not None:
        matrices = torch.from_numpy(views.color[indices]).to(device, non_blocking=True)
        # Round between the two steps, as the CPU renderer does.
        flat = images.round().reshape(n_images, 3, -1)
        images = torch.baddbmm(matrices[:, :, 3:], matrices[:, :, :3], flat).reshape(images.shape)
    out = images.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    if views.erase_boxes is not None:
        boxes = torch.from_numpy(views.erase_boxes[indices]).to(device, non_blocking=True)
        out[_box_masks(boxes, views.crop_size)] = 0
    return out


def _sampling_grid(geometry: Tensor, crop_size: int, height: int, width: int) -> Tensor:
    """Return the source position of each pixel of each view, in the coordinates of `grid_sample` (−1 to 1)."""
    axis = torch.arange(crop_size, device=geometry.device, dtype=torch.float32)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    pixel_positions = torch.stack([x, y, torch.ones_like(x)], dim=-1).reshape(-1, 3)
    source = pixel_positions @ geometry.transpose(1, 2)
    size = torch.tensor([width, height], device=geometry.device, dtype=torch.float32)
    return ((2 * source + 1) / size - 1).reshape(len(geometry), crop_size, crop_size, 2)


def _box_masks(boxes: Tensor, crop_size: int) -> Tensor:
    """Return a mask (N, crop_size, crop_size) of the pixels inside each box."""
    axis = torch.arange(crop_size, device=boxes.device)
    left, top, right, bottom = (edge[:, None] for edge in boxes.unbind(1))
    columns = (axis >= left) & (axis < right)
    rows = (axis >= top) & (axis < bottom)
    return rows[:, :, None] & columns[:, None, :]
