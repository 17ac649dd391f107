"""Architectures of timm, as small as they come, with random weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import zoo

zoo.torchvision()
import timm  # noqa: E402


@dataclass(frozen=True)
class Model:
    name: str
    size: int = 64  # of the image
    options: dict[str, Any] = field(default_factory=dict)

    def build(self) -> tuple[torch.nn.Module, dict[str, Any]]:
        model = timm.create_model(self.name, pretrained=False, num_classes=10, **self.options)
        return model, {"x": torch.randn(2, 3, self.size, self.size)}


def _sized(name: str, size: int = 64, **options: Any) -> Model:
    """One whose layers are made for an image size."""
    return Model(name, size, {"img_size": size, **options})


MODELS = [
    Model("resnet18"),
    Model("resnetv2_50d_gn", options={"layers": (1, 1, 1, 1)}),
    Model("vgg11_bn"),
    Model("densenet121", options={"block_config": (2, 2, 2, 2)}),
    Model("efficientnet_b0"),
    Model("tf_efficientnetv2_b0"),
    Model("mobilenetv3_small_050"),
    Model("mobilenetv4_conv_small"),
    Model("mobilenetv4_hybrid_medium"),
    Model("mnasnet_small"),
    Model("ghostnetv2_100"),
    Model("lcnet_050"),
    Model("regnety_002"),
    Model("nfnet_l0", options={"depths": (1, 1, 1, 1)}),
    Model("nf_resnet50", options={"channels": (16, 32, 64, 64), "depths": (1, 1, 1, 1)}),
    Model("test_nfnet"),
    Model("convnext_atto", options={"depths": (1, 1, 1, 1)}),
    Model("convnextv2_atto", options={"depths": (1, 1, 1, 1)}),
    Model("convmixer_768_32"),
    Model("inception_v4", 96),
    Model("inception_next_atto", 64),
    Model("xception41", 64),
    Model("dla34", 64),
    Model("dpn48b", 64),
    Model("hrnet_w18_small", 64),
    Model("res2net50_14w_8s", 64, {"layers": [1, 1, 1, 1]}),
    Model("resnest14d", 64),
    Model("skresnet18", 64),
    Model("seresnext26t_32x4d", 64, {"layers": [1, 1, 1, 1]}),
    Model("cspresnet50", 64),
    Model("ese_vovnet19b_slim", 64),
    Model("rexnet_100", 64, {"depth_mult": 0.4}),
    Model("repvgg_a0", 64),
    Model("repvit_m0_9", 64, {"depth": (1, 1, 2, 1)}),
    Model("rdnet_tiny", 64),
    Model("tresnet_m", 64),
    Model("hgnetv2_b0", 64),
    Model("fasternet_t0", 64, {"depths": (1, 1, 1, 1)}),
    Model("starnet_s1", 64),
    Model("mambaout_femto", 64),
    Model("botnet26t_256", 256),
    Model("lambda_resnet26t", 128),
    Model("halonet26t", 256),
    _sized("vit_tiny_patch16_224", depth=2),
    _sized("deit_tiny_distilled_patch16_224", depth=2),
    _sized("vit_relpos_small_patch16_224", depth=2),
    _sized("vit_tiny_r_s16_p8_224", depth=2),
    _sized("eva02_tiny_patch14_224", 56, depth=2),
    _sized("beit_base_patch16_224", depth=2, embed_dim=64, num_heads=4),
    _sized("cait_xxs24_224", depth=2),
    _sized("xcit_nano_12_p16_224", depth=2),
    _sized(
        "swin_tiny_patch4_window7_224",
        depths=(1, 2, 1, 1),
        embed_dim=24,
        num_heads=(1, 2, 4, 8),
        window_size=4,
    ),
    _sized(
        "swinv2_tiny_window8_256", depths=(1, 2, 1, 1), embed_dim=24, num_heads=(1, 2, 4, 8), window_size=4
    ),
    _sized("swinv2_cr_tiny_224", depths=(1, 2, 1, 1), embed_dim=24, num_heads=(1, 2, 4, 8)),
    Model("maxvit_rmlp_pico_rw_256", 128, {"img_size": 128, "depths": (1, 1, 1, 1)}),
    Model("coatnet_nano_rw_224", 64, {"img_size": 64, "depths": (1, 1, 1, 1)}),
    Model("levit_128s", 64, {"img_size": 64}),
    Model("efficientformer_l1", 224, {"depths": (1, 1, 1, 2), "num_vit": 1}),
    Model("efficientvit_b0", 64, {"depths": (1, 1, 1, 1)}),
    Model("efficientvit_m0", 224, {"depth": (1, 1, 1)}),
    Model("mobilevit_xxs", 64),
    Model("mobilevitv2_050", 64),
    Model("edgenext_xx_small", 64, {"depths": (1, 1, 2, 1)}),
    Model("fastvit_t8", 64, {"layers": (1, 1, 1, 1)}),
    Model("poolformer_s12", 64),
    Model("caformer_s18"),
    Model("mixer_s32_224", 64, {"img_size": 64}),
    Model("gmlp_ti16_224", 64, {"img_size": 64}),
    Model("resmlp_12_224", 64, {"img_size": 64}),
    Model("pit_ti_224", 64, {"img_size": 64}),
    Model("twins_svt_small", 64, {"img_size": 64, "depths": (1, 1, 2, 1)}),
    Model("pvt_v2_b0", 64),
    Model("crossvit_9_240", 240),
    Model("coat_tiny", 64, {"img_size": 64}),
    Model("convit_tiny", 64, {"img_size": 64, "depth": 3}),
    Model("tnt_s_patch16_224", 64, {"img_size": 64, "depth": 2}),
    Model("volo_d1_224", 64, {"img_size": 64}),
    Model("visformer_tiny", 64, {"img_size": 64}),
    Model("nest_tiny", 64, {"img_size": 64}),
    Model("focalnet_tiny_srf"),
    Model("gcvit_xxtiny", 224),
    Model("davit_tiny", 64, {"depths": (1, 1, 1, 1)}),
    Model("hiera_tiny_224", 224),
    Model("mvitv2_tiny", 64, {"img_size": 64}),
    Model("sequencer2d_s", 64, {"img_size": 64, "layers": (1, 1, 1, 1)}),
    Model("tiny_vit_5m_224", 224),
    Model("shvit_s1", 224),
    Model("vitamin_small_224", 64, {"img_size": 64}),
    Model("nextvit_small", 64),
    Model("swiftformer_xs", 224),
    Model("selecsls42", 64),
    Model("sam2_hiera_tiny", 64),
    Model("samvit_base_patch16_224", 64, {"img_size": 64, "depth": 2, "embed_dim": 64, "num_heads": 4}),
    Model("naflexvit_base_patch16_gap", 64, {"depth": 2, "embed_dim": 64, "num_heads": 4}),
    Model("nasnetalarge", 96),
    Model("iformer_s", 64),
    Model("efficientvim_m1", 224),
    Model("lowformer_b0", 64),
    Model("csatv2", 512),
]
