"""Architectures of transformers with small configurations and random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import zoo

transformers = zoo.transformers()

VOCABULARY = 120
# What makes a configuration small, whatever the architecture calls it.
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "d_model": 64,
    "n_embd": 64,
    "embed_dim": 64,
    "dim": 64,
    "hidden_dim": 64,
    "embedding_size": 64,
    "num_hidden_layers": 2,
    "n_layer": 2,
    "n_layers": 2,
    "num_layers": 2,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
    "depth": 2,
    "num_attention_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "num_heads": 4,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
    "ffn_dim": 96,
    "d_ff": 96,
    "d_inner": 96,
    "encoder_ffn_dim": 96,
    "decoder_ffn_dim": 96,
    "max_position_embeddings": 128,
    "n_positions": 128,
    "image_size": 32,
    "patch_size": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "layerdrop": 0.0,
    "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0,
}

Inputs = dict[str, torch.Tensor]


def ids(length: int = 12, batch: int = 2) -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (batch, length))


def text() -> Inputs:
    return {"input_ids": ids()}


def padded_text() -> Inputs:
    mask = torch.ones(2, 12, dtype=torch.long)
    mask[1, 8:] = 0
    return {"input_ids": ids(), "attention_mask": mask}


def labelled_text() -> Inputs:
    tokens = ids()
    return {"input_ids": tokens, "labels": tokens}


def text_to_text() -> Inputs:
    return {"input_ids": ids(), "decoder_input_ids": ids(7)}


def image(size: int = 32) -> Callable[[], Inputs]:
    return lambda: {"pixel_values": torch.randn(2, 3, size, size)}


def image_and_text() -> Inputs:
    return {"pixel_values": torch.randn(2, 3, 32, 32), "input_ids": ids(9)}


def sound() -> Inputs:
    return {"input_values": torch.randn(2, 1600)}


@dataclass(frozen=True)
class Model:
    name: str
    model: str  # the class
    inputs: Callable[[], Inputs] = text
    options: dict[str, Any] = field(default_factory=dict)  # of the configuration, those of parts in a dict
    attention: str | None = None

    def build(self) -> tuple[torch.nn.Module, Inputs]:
        kind = getattr(transformers, self.model)
        config = small_config(kind.config_class, self.options)
        if self.attention:
            config._attn_implementation = self.attention
        return kind(config), self.inputs()


def small_config(kind: type, options: dict[str, Any]) -> Any:
    """The configuration with small sizes, `options` over them; a dict stands for a part's options."""
    default = kind()
    parts = {
        name: value
        for name, value in vars(default).items()
        if isinstance(value, transformers.PreTrainedConfig) and "model_type" not in options.get(name, {})
    }
    settings = {
        name: value
        for name, value in SMALL.items()
        if isinstance(getattr(default, name, None), (int, float)) and name not in options.get("keep", ())
    }
    settings |= {name: small_config(type(part), options.get(name, {})) for name, part in parts.items()}
    settings |= {name: value for name, value in options.items() if name not in parts and name != "keep"}
    return kind(**settings)


MODELS = [
    # Encoders of text
    Model("bert", "BertForMaskedLM", labelled_text),
    Model("bert_padded", "BertModel", padded_text),
    Model("albert", "AlbertModel"),
    Model(
        "deberta_v2",
        "DebertaV2Model",
        padded_text,
        {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
    ),
    Model("distilbert", "DistilBertForSequenceClassification", padded_text),
    Model("electra", "ElectraForPreTraining"),
    Model("mpnet", "MPNetModel"),
    Model("fnet", "FNetModel"),
    Model(
        "funnel", "FunnelModel", text, {"block_sizes": [1, 1], "d_head": 16, "keep": ["num_hidden_layers"]}
    ),
    Model("longformer", "LongformerModel", padded_text, {"attention_window": 4}),
    Model(
        "mobilebert",
        "MobileBertModel",
        text,
        {"embedding_size": 32, "intra_bottleneck_size": 32, "true_hidden_size": 32},
    ),
    Model("modernbert", "ModernBertModel", padded_text),
    Model("roformer", "RoFormerModel", text),
    Model("squeezebert", "SqueezeBertModel", text),
    Model("xlm_roberta", "XLMRobertaForTokenClassification", padded_text),
    Model("xlnet", "XLNetLMHeadModel", text, {"keep": ["max_position_embeddings"]}),
    Model("yoso", "YosoModel", text, {"use_expectation": True}),
    Model("ibert", "IBertModel", text),
    Model(
        "esm",
        "EsmModel",
        text,
        {"position_embedding_type": "rotary", "vocab_size": VOCABULARY, "pad_token_id": 0},
    ),
    Model("canine", "CanineModel", lambda: {"input_ids": ids(64)}, {"local_transformer_stride": 16}),
    Model(
        "reformer",
        "ReformerModel",
        lambda: {"input_ids": ids(64)},
        {
            "attn_layers": ["local", "local"],
            "axial_pos_shape": [8, 8],
            "axial_pos_embds_dim": [32, 32],
            "attention_head_size": 16,
            "feed_forward_size": 64,
        },
    ),
    # Decoders
    Model("gpt2", "GPT2LMHeadModel", labelled_text),
    Model(
        "gpt_neo",
        "GPTNeoForCausalLM",
        text,
        {"attention_types": [[["global", "local"], 1]], "window_size": 4},
    ),
    Model("gpt_neox", "GPTNeoXForCausalLM"),
    Model("gptj", "GPTJForCausalLM", text, {"rotary_dim": 8}),
    Model("gpt_bigcode", "GPTBigCodeForCausalLM"),
    Model("codegen", "CodeGenForCausalLM", text, {"rotary_dim": 8}),
    Model("opt", "OPTForCausalLM", padded_text, {"word_embed_proj_dim": 64}),
    Model("bloom", "BloomForCausalLM", padded_text),
    Model("falcon", "FalconForCausalLM", text, {"keep": ["head_dim"]}),
    Model("mpt", "MptForCausalLM"),
    Model("llama", "LlamaForCausalLM", labelled_text),
    Model("llama_padded", "LlamaForCausalLM", padded_text),
    Model("llama_eager_attention", "LlamaForCausalLM", padded_text, {}, "eager"),
    Model("mistral", "MistralForCausalLM", padded_text, {"sliding_window": 4}),
    Model("phi3", "Phi3ForCausalLM"),
    Model("qwen3", "Qwen3ForCausalLM", padded_text),
    Model("gemma2", "Gemma2ForCausalLM", padded_text, {"sliding_window": 4}),
    Model("gemma3", "Gemma3ForCausalLM", padded_text, {"sliding_window": 4}),
    Model(
        "gemma3n",
        "Gemma3nForCausalLM",
        text,
        {
            "hidden_size_per_layer_input": 16,
            "vocab_size_per_layer_input": 120,
            "num_kv_shared_layers": 0,
            "layer_types": ["sliding_attention", "full_attention"],
            "intermediate_size": [96, 96],
            "activation_sparsity_pattern": [0.9, 0.0],
            "laurel_rank": 8,
        },
    ),
    Model("olmo2", "Olmo2ForCausalLM"),
    Model("cohere", "CohereForCausalLM"),
    Model("granite", "GraniteForCausalLM"),
    Model("diffllama", "DiffLlamaForCausalLM"),
    Model("stablelm", "StableLmForCausalLM"),
    Model("starcoder2", "Starcoder2ForCausalLM"),
    Model("xglm", "XGLMForCausalLM"),
    Model("ctrl", "CTRLLMHeadModel", text, {"dff": 64}),
    # Mixtures of experts
    Model("mixtral", "MixtralForCausalLM", padded_text, {"num_local_experts": 4}),
    Model(
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        text,
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    ),
    Model(
        "deepseek_v3",
        "DeepseekV3ForCausalLM",
        text,
        {
            "n_routed_experts": 8,
            "n_group": 2,
            "topk_group": 1,
            "num_experts_per_tok": 2,
            "q_lora_rank": 24,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 16,
            "moe_intermediate_size": 32,
            "first_k_dense_replace": 1,
            "num_key_value_heads": 4,
            "keep": ["head_dim"],
        },
    ),
    Model("gpt_oss", "GptOssForCausalLM", padded_text, {"num_local_experts": 4, "sliding_window": 4}),
    Model("olmoe", "OlmoeForCausalLM", text, {"num_experts": 4, "num_experts_per_tok": 2}),
    Model(
        "switch_transformers",
        "SwitchTransformersModel",
        text_to_text,
        {
            "num_experts": 4,
            "num_sparse_encoder_layers": 1,
            "num_sparse_decoder_layers": 1,
            "router_jitter_noise": 0.0,
            "d_kv": 16,
        },
    ),
    Model("nllb_moe", "NllbMoeModel", text_to_text, {"num_experts": 4}),
    Model("minimax_m2", "MiniMaxM2Model", text, {"num_local_experts": 4, "num_experts_per_tok": 2}),
    Model("llama4_text", "Llama4TextModel", text, {"num_local_experts": 4, "num_experts_per_tok": 2}),
    # States and recurrences
    Model("mamba", "MambaForCausalLM", text, {"state_size": 8}),
    Model(
        "mamba2",
        "Mamba2ForCausalLM",
        text,
        {"state_size": 8, "num_heads": 8, "head_dim": 16, "chunk_size": 8, "n_groups": 1},
    ),
    Model("rwkv", "RwkvForCausalLM", text, {"attention_hidden_size": 64, "context_length": 32}),
    Model(
        "recurrent_gemma",
        "RecurrentGemmaForCausalLM",
        text,
        {"num_hidden_layers": 3, "lru_width": 64, "attention_window_size": 8},
    ),
    Model(
        "jamba",
        "JambaForCausalLM",
        text,
        {
            "attn_layer_offset": 1,
            "attn_layer_period": 2,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "num_experts": 2,
            "mamba_d_state": 8,
            "mamba_dt_rank": 8,
        },
    ),
    Model(
        "bamba",
        "BambaForCausalLM",
        text,
        {
            "mamba_n_heads": 8,
            "mamba_d_head": 16,
            "mamba_d_state": 8,
            "attn_layer_indices": [1],
            "mamba_chunk_size": 8,
        },
    ),
    Model(
        "falcon_h1",
        "FalconH1ForCausalLM",
        text,
        {
            "mamba_n_heads": 8,
            "mamba_d_head": 16,
            "mamba_d_ssm": 128,
            "mamba_d_state": 8,
            "mamba_chunk_size": 8,
        },
    ),
    Model(
        "xlstm",
        "xLSTMForCausalLM",
        text,
        {"num_blocks": 2, "embedding_dim": 64, "chunk_size": 4, "qk_dim_factor": 1.0, "use_cache": False},
    ),
    Model(
        "qwen3_next",
        "Qwen3NextForCausalLM",
        text,
        {
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "layer_types": ["linear_attention", "full_attention"],
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 32,
        },
    ),
    Model(
        "nemotron_h",
        "NemotronHModel",
        text,
        {
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "n_group": 1,
            "topk_group": 1,
        },
    ),
    Model("olmo_hybrid", "OlmoHybridModel"),
    Model("lfm2", "Lfm2ForCausalLM", text, {"layer_types": ["conv", "full_attention"]}),
    # Encoders and decoders
    Model("t5", "T5ForConditionalGeneration", text_to_text, {"d_kv": 16}),
    Model("bart", "BartForConditionalGeneration", text_to_text),
    Model("led", "LEDModel", text_to_text, {"attention_window": 4}),
    Model("longt5", "LongT5Model", text_to_text, {"local_radius": 4, "d_kv": 16}),
    Model("m2m_100", "M2M100Model", text_to_text),
    Model(
        "prophetnet",
        "ProphetNetModel",
        text_to_text,
        {"num_encoder_attention_heads": 4, "num_decoder_attention_heads": 4, "keep": ["num_hidden_layers"]},
    ),
    Model("bigbird_pegasus", "BigBirdPegasusModel", text_to_text, {"attention_type": "original_full"}),
    # Vision
    Model("vit", "ViTForImageClassification", image()),
    Model("dinov2", "Dinov2Model", image()),
    Model("beit", "BeitModel", image()),
    Model(
        "swin",
        "SwinModel",
        image(64),
        {
            "image_size": 64,
            "patch_size": 4,
            "depths": [1, 1],
            "num_heads": [2, 4],
            "window_size": 4,
            "embed_dim": 16,
        },
    ),
    Model(
        "swinv2",
        "Swinv2Model",
        image(64),
        {
            "image_size": 64,
            "patch_size": 4,
            "depths": [2, 1],
            "num_heads": [2, 4],
            "window_size": 4,
            "embed_dim": 16,
        },
    ),
    Model(
        "convnextv2",
        "ConvNextV2Model",
        image(64),
        {"depths": [1, 1], "hidden_sizes": [16, 32], "num_stages": 2},
    ),
    Model(
        "segformer",
        "SegformerForSemanticSegmentation",
        image(64),
        {
            "num_encoder_blocks": 2,
            "depths": [1, 1],
            "sr_ratios": [4, 2],
            "hidden_sizes": [16, 32],
            "patch_sizes": [7, 3],
            "strides": [4, 2],
            "num_attention_heads": [1, 2],
            "mlp_ratios": [2, 2],
            "decoder_hidden_size": 32,
        },
    ),
    Model(
        "mobilevit",
        "MobileViTModel",
        image(64),
        {
            "image_size": 64,
            "patch_size": 2,
            "hidden_sizes": [16, 24, 32],
            "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 64],
        },
    ),
    Model(
        "levit",
        "LevitModel",
        image(64),
        {
            "image_size": 64,
            "hidden_sizes": [16, 32, 48],
            "num_attention_heads": [2, 2, 2],
            "depths": [1, 1, 1],
            "key_dim": [8, 8, 8],
            "keep": ["patch_size"],
        },
    ),
    Model(
        "pvt",
        "PvtModel",
        image(64),
        {
            "image_size": 64,
            "num_encoder_blocks": 2,
            "depths": [1, 1],
            "hidden_sizes": [16, 32],
            "num_attention_heads": [1, 2],
            "patch_sizes": [4, 2],
            "sequence_reduction_ratios": [4, 1],
            "strides": [4, 2],
            "mlp_ratios": [2, 2],
        },
    ),
    Model(
        "resnet", "ResNetModel", image(64), {"hidden_sizes": [16, 32], "depths": [1, 1], "embedding_size": 8}
    ),
    Model(
        "poolformer", "PoolFormerModel", image(64), {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32]}
    ),
    Model(
        "focalnet",
        "FocalNetModel",
        image(64),
        {
            "image_size": 64,
            "patch_size": 4,
            "embed_dim": 16,
            "depths": [1, 1],
            "focal_levels": [2, 2],
            "focal_windows": [3, 3],
        },
    ),
    Model(
        "cvt",
        "CvtModel",
        image(64),
        {
            "embed_dim": [16, 32, 48],
            "num_heads": [1, 2, 3],
            "depth": [1, 2, 3],
            "drop_path_rate": [0.0, 0.0, 0.0],
        },
    ),
    Model("vit_mae", "ViTMAEModel", lambda: image()() | {"noise": torch.rand(2, 16)}),
    Model(
        "sam",
        "SamVisionModel",
        image(64),
        {
            "image_size": 64,
            "window_size": 2,
            "global_attn_indexes": [1],
            "output_channels": 32,
            "mlp_dim": 64,
        },
    ),
    Model(
        "detr",
        "DetrModel",
        image(64),
        {
            "num_queries": 5,
            "use_timm_backbone": False,
            "backbone": None,
            "backbone_config": {
                "model_type": "resnet",
                "hidden_sizes": [8, 16],
                "depths": [1, 1],
                "embedding_size": 8,
                "out_features": ["stage2"],
            },
        },
    ),
    Model(
        "deformable_detr",
        "DeformableDetrModel",
        image(64),
        {
            "num_queries": 5,
            "use_timm_backbone": False,
            "backbone": None,
            "backbone_config": {
                "model_type": "resnet",
                "hidden_sizes": [8, 16, 16, 16],
                "depths": [1, 1, 1, 1],
                "embedding_size": 8,
                "out_features": ["stage2", "stage3", "stage4"],
            },
        },
    ),
    Model(
        "dpt",
        "DPTForDepthEstimation",
        image(),
        {
            "is_hybrid": False,
            "backbone_out_indices": [0, 1, 2, 3],
            "num_hidden_layers": 4,
            "reassemble_factors": [4, 2, 1, 0.5],
            "neck_hidden_sizes": [8, 16, 24, 32],
            "fusion_hidden_size": 32,
            "hidden_size": 64,
        },
    ),
    Model("yolos", "YolosForObjectDetection", image(), {"image_size": [32, 32], "num_detection_tokens": 4}),
    Model("superpoint", "SuperPointForKeypointDetection", image(64)),
    Model(
        "videomae", "VideoMAEModel", lambda: {"pixel_values": torch.randn(2, 4, 3, 32, 32)}, {"num_frames": 4}
    ),
    Model(
        "timesformer",
        "TimesformerModel",
        lambda: {"pixel_values": torch.randn(2, 4, 3, 32, 32)},
        {"num_frames": 4},
    ),
    Model(
        "vivit",
        "VivitModel",
        lambda: {"pixel_values": torch.randn(2, 4, 3, 32, 32)},
        {"num_frames": 4, "tubelet_size": [2, 8, 8]},
    ),
    # Sound
    Model(
        "wav2vec2",
        "Wav2Vec2Model",
        sound,
        {
            "conv_dim": (16, 16),
            "conv_kernel": (10, 4),
            "conv_stride": (5, 4),
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 2,
            "mask_time_prob": 0.0,
            "apply_spec_augment": False,
        },
    ),
    Model(
        "hubert",
        "HubertModel",
        sound,
        {
            "conv_dim": (16, 16),
            "conv_kernel": (10, 4),
            "conv_stride": (5, 4),
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 2,
            "apply_spec_augment": False,
        },
    ),
    Model(
        "wavlm",
        "WavLMModel",
        sound,
        {
            "conv_dim": (16, 16),
            "conv_kernel": (10, 4),
            "conv_stride": (5, 4),
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 2,
            "apply_spec_augment": False,
        },
    ),
    Model(
        "whisper",
        "WhisperModel",
        lambda: {"input_features": torch.randn(2, 16, 40), "decoder_input_ids": ids(7)},
        {"num_mel_bins": 16, "max_source_positions": 20, "max_target_positions": 20},
    ),
    Model(
        "audio_spectrogram_transformer",
        "ASTModel",
        lambda: {"input_values": torch.randn(2, 32, 24)},
        {"max_length": 32, "num_mel_bins": 24},
    ),
    Model(
        "speech_to_text",
        "Speech2TextModel",
        lambda: {"input_features": torch.randn(2, 40, 16), "decoder_input_ids": ids(7)},
        {
            "input_feat_per_channel": 16,
            "conv_channels": 32,
            "max_source_positions": 40,
            "max_target_positions": 20,
        },
    ),
    Model(
        "encodec",
        "EncodecModel",
        lambda: {"input_values": torch.randn(1, 1, 640)},
        {"hidden_size": 32, "num_filters": 4, "codebook_size": 32, "codebook_dim": 32},
    ),
    Model(
        "wav2vec2_conformer",
        "Wav2Vec2ConformerModel",
        sound,
        {
            "conv_dim": (16, 16),
            "conv_kernel": (10, 4),
            "conv_stride": (5, 4),
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 2,
            "apply_spec_augment": False,
            "position_embeddings_type": "rotary",
        },
    ),
    Model(
        "sew_d",
        "SEWDModel",
        sound,
        {
            "conv_dim": (16, 16),
            "conv_kernel": (10, 4),
            "conv_stride": (5, 4),
            "squeeze_factor": 2,
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 2,
            "apply_spec_augment": False,
        },
    ),
    # Several kinds at once
    Model("clip", "CLIPModel", image_and_text, {"projection_dim": 32}),
    Model("siglip", "SiglipModel", image_and_text),
    Model("blip", "BlipForConditionalGeneration", image_and_text),
    Model(
        "vilt",
        "ViltModel",
        lambda: image_and_text() | {"token_type_ids": torch.zeros(2, 9, dtype=torch.long)},
    ),
    Model("flava", "FlavaModel", image_and_text),
    Model("bridgetower", "BridgeTowerModel", image_and_text),
    Model(
        "visual_bert",
        "VisualBertModel",
        lambda: text() | {"visual_embeds": torch.randn(2, 5, 32)},
        {"visual_embedding_dim": 32},
    ),
    Model(
        "layoutlm",
        "LayoutLMModel",
        lambda: text() | {"bbox": torch.randint(0, 100, (2, 12, 2)).repeat(1, 1, 2)},
    ),
    Model(
        "layoutlmv3",
        "LayoutLMv3Model",
        lambda: text() | {"bbox": torch.randint(0, 100, (2, 12, 2)).repeat(1, 1, 2)},
        {"coordinate_size": 10, "shape_size": 12, "input_size": 32},
    ),
    Model(
        "llava",
        "LlavaForConditionalGeneration",
        lambda: {
            "input_ids": torch.cat([torch.full((2, 16), 5), ids(6).clamp_min(6)], 1),
            "pixel_values": torch.randn(2, 3, 32, 32),
        },
        {"image_token_id": 5, "vision_feature_select_strategy": "default", "vision_feature_layer": -1},
    ),
    Model("owlvit", "OwlViTModel", lambda: {"input_ids": ids(9), "pixel_values": torch.randn(2, 3, 32, 32)}),
    Model(
        "perceiver",
        "PerceiverModel",
        lambda: {"inputs": torch.randn(2, 10, 24)},
        {"d_latents": 32, "num_latents": 8, "d_model": 24, "num_blocks": 1, "num_self_attends_per_block": 2},
    ),
    Model(
        "lxmert",
        "LxmertModel",
        lambda: text() | {"visual_feats": torch.randn(2, 5, 32), "visual_pos": torch.rand(2, 5, 4)},
        {"visual_feat_dim": 32, "l_layers": 1, "x_layers": 1, "r_layers": 1},
    ),
    Model("git", "GitModel", image_and_text),
    Model("trocr", "TrOCRForCausalLM"),
    # Series and decisions
    Model(
        "patchtst",
        "PatchTSTModel",
        lambda: {"past_values": torch.randn(2, 32, 3)},
        {"num_input_channels": 3, "context_length": 32, "patch_length": 8, "patch_stride": 8},
    ),
    Model(
        "patchtsmixer",
        "PatchTSMixerModel",
        lambda: {"past_values": torch.randn(2, 32, 3)},
        {"num_input_channels": 3, "context_length": 32, "patch_length": 8, "patch_stride": 8},
    ),
    Model(
        "informer",
        "InformerModel",
        lambda: {
            "past_values": torch.randn(2, 23),
            "past_time_features": torch.randn(2, 23, 2),
            "past_observed_mask": torch.ones(2, 23),
            "future_values": torch.randn(2, 6),
            "future_time_features": torch.randn(2, 6, 2),
        },
        {"prediction_length": 6, "context_length": 16, "num_time_features": 2},
    ),
    Model(
        "autoformer",
        "AutoformerModel",
        lambda: {
            "past_values": torch.randn(2, 23),
            "past_time_features": torch.randn(2, 23, 2),
            "past_observed_mask": torch.ones(2, 23),
            "future_values": torch.randn(2, 6),
            "future_time_features": torch.randn(2, 6, 2),
        },
        {"prediction_length": 6, "context_length": 16, "num_time_features": 2},
    ),
    Model(
        "decision_transformer",
        "DecisionTransformerModel",
        lambda: {
            "states": torch.randn(2, 6, 5),
            "actions": torch.randn(2, 6, 3),
            "rewards": torch.randn(2, 6, 1),
            "returns_to_go": torch.randn(2, 6, 1),
            "timesteps": torch.arange(6).expand(2, 6),
            "attention_mask": torch.ones(2, 6),
        },
        {"state_dim": 5, "act_dim": 3, "max_ep_len": 16},
    ),
]
