"""The rewards that a spec may ask for. Pure data; import it from `alignment_core.spec`.

`docs/rewards.md` has the formula, the weights and the licence of each.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, field_validator, model_validator

from alignment_core.spec.base import Spec, misfit
from alignment_core.spec.sources import WITHOUT_NUL, CatalogSource, LocalSource, Name, WeightsSpec, catalog_named
from alignment_core.spec.unions import OneOf

PRINTED_ASCII = r"^[!-~]+$"
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class RewardBase(Spec):
    name: Name | None = Field(default=None, description="Column name in reports; the reward's type when left out.")


# --- without weights -----------------------------------------------------------------------------------------------


class ColorfulnessReward(RewardBase):
    """Hasler and Suesstrunk (2003) colourfulness of the image in [0, 255], divided by 100."""

    type: Literal["colorfulness"] = "colorfulness"


class BrightnessReward(RewardBase):
    """Mean pixel value in [0, 1]."""

    type: Literal["brightness"] = "brightness"


class SymmetryReward(RewardBase):
    """Left-right symmetry, minus the mean squared difference of the image and its mirror image: in [-1, 0]."""

    type: Literal["symmetry"] = "symmetry"


class JpegSizeReward(RewardBase):
    """Size of the image as JPEG, in kB (1000 bytes). Not differentiable; values depend on the JPEG library."""

    type: Literal["jpeg_size"] = "jpeg_size"
    direction: Literal["compressible", "incompressible"] = Field(
        default="compressible", description="`compressible` is minus the size, `incompressible` the size."
    )
    quality: int = Field(default=95, ge=1, le=100, description="JPEG quality (DDPO, arXiv 2305.13301, uses 95).")


# --- with weights --------------------------------------------------------------------------------------------------


class AttributeClassifierReward(RewardBase):
    """Mean probability, by a small classifier, of the attributes that the prompt names (the demo model's domain)."""

    type: Literal["attribute_classifier"] = "attribute_classifier"
    weights: Annotated[CatalogSource | LocalSource, OneOf(catalog_named)]


class ClipScoreReward(RewardBase):
    """Cosine of CLIP's image and text embeddings, in [-1, 1]; say which CLIP."""

    type: Literal["clip_score"] = "clip_score"
    model: WeightsSpec


class PickScoreReward(RewardBase):
    """PickScore (arXiv 2305.01569): exp(logit_scale) cos of a CLIP-H tuned on Pick-a-Pic, usually 17 to 24."""

    type: Literal["pick_score"] = "pick_score"
    model: WeightsSpec = Field(description="The tuned CLIP, published as `yuvalkirstain/PickScore_v1`.")
    processor: WeightsSpec | None = Field(
        default=None,
        description="Tokenizer and preprocessor where the model's folder has none; published with PickScore is "
        "`laion/CLIP-ViT-H-14-laion2B-s32B-b79K`.",
    )


class HpsV2Reward(RewardBase):
    """HPSv2 (arXiv 2306.09341): cosine of a CLIP-H tuned on HPDv2, usually 0.15 to 0.37; reports show it times 100."""

    type: Literal["hpsv2"] = "hpsv2"
    model: WeightsSpec = Field(
        description="What `python -m alignment_core.rewards.convert hpsv2` made of `HPS_v2_compressed.pt`."
    )


class HpsV21Reward(RewardBase):
    """HPSv2.1: HPSv2's cosine with later weights; scores of the two versions are not comparable."""

    type: Literal["hpsv2.1"] = "hpsv2.1"
    model: WeightsSpec = Field(
        description="What `python -m alignment_core.rewards.convert hpsv2.1` made of `HPS_v2.1_compressed.pt`."
    )


class ImageRewardReward(RewardBase):
    """ImageReward (arXiv 2304.05977): a BLIP tuned on ranked images, standardised, usually -2.3 to 2.1."""

    type: Literal["image_reward"] = "image_reward"
    weights: WeightsSpec = Field(
        description="What `python -m alignment_core.rewards.convert image_reward` made of `ImageReward.pt`."
    )


class AestheticReward(RewardBase):
    """LAION's aesthetic predictor v2: an affine map of CLIP's unit image embedding, usually 4 to 7.5."""

    type: Literal["aesthetic"] = "aesthetic"
    model: WeightsSpec = Field(description="CLIP ViT-L/14, published as `openai/clip-vit-large-patch14`.")
    weights: WeightsSpec = Field(
        description="What `python -m alignment_core.rewards.convert aesthetic` made of `sac+logos+ava1-l14-linearMSE.pth`."
    )


# --- elsewhere, and together ---------------------------------------------------------------------------------------


class RemoteReward(RewardBase):
    """Scores by a server of yours over HTTPS; `docs/rewards.md` has the protocol and a server in thirty lines.

    The images and the prompts leave this machine. Requests are signed with the secret of the worker's operator.
    """

    type: Literal["remote"] = "remote"
    url: Annotated[str, StringConstraints(max_length=2000, pattern=PRINTED_ASCII)] = Field(
        description="Where the images are sent: https, on a host that the operator allows. Plain http is for a server "
        "on the machine that trains, by `localhost`, `127.0.0.1` or `[::1]`.",
        examples=["https://rewards.example.org/score"],
    )
    timeout_seconds: float = Field(default=60.0, gt=0, le=600, description="Of one attempt, until its last byte.")
    max_attempts: int = Field(
        default=4, ge=1, le=10, description="Attempts, 1 s, 2 s, 4 s ... apart, before the run fails."
    )
    batch_size: int = Field(default=16, ge=1, le=256, description="Images in one request.")
    version: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        pattern=WITHOUT_NUL,
        description="Of what the server scores with: under it scores are remembered, and the server is asked once for an image. "
        "Not remembered when left out.",
    )

    @field_validator("url")
    @classmethod
    def _is_https_and_nothing_but_an_address(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError(f"expected https://HOST[:PORT]/PATH: {error}") from error
        if not host or parts.scheme not in ("https", "http"):
            raise ValueError("expected https://HOST[:PORT]/PATH")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("expected no user, query or fragment: a spec is shown in reports, so it holds no secrets")
        if parts.scheme == "http" and host not in LOOPBACK:
            raise ValueError(f"expected https, since {host} is not the machine that trains")
        return url

    @property
    def host(self) -> str:
        """Name or address of the server, in lower case."""
        return urlsplit(self.url).hostname or ""


_SingleReward = (
    ColorfulnessReward
    | BrightnessReward
    | SymmetryReward
    | JpegSizeReward
    | AttributeClassifierReward
    | ClipScoreReward
    | PickScoreReward
    | HpsV2Reward
    | HpsV21Reward
    | ImageRewardReward
    | AestheticReward
    | RemoteReward
)
SingleRewardSpec = Annotated[_SingleReward, OneOf()]


class WeightedPart(Spec):
    """One term of a weighted sum."""

    weight: float = Field(ge=-1e6, le=1e6, description="Factor of the score; a negative one turns the reward round.")
    reward: SingleRewardSpec

    @field_validator("weight")
    @classmethod
    def _counts(cls, weight: float) -> float:
        if weight == 0:
            raise ValueError("a weight of 0 counts for nothing: leave the part out")
        return weight


class WeightedSumReward(RewardBase):
    """Sum of weight times score over its parts; differentiable where every part is. Scores are not rescaled first."""

    type: Literal["weighted_sum"] = "weighted_sum"
    parts: tuple[WeightedPart, ...] = Field(min_length=1, max_length=16)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        check_unique_names([part.reward for part in self.parts], "parts")
        return self


RewardSpec = Annotated[_SingleReward | WeightedSumReward, OneOf()]


def without_gradient(reward: _SingleReward | WeightedSumReward) -> str | None:
    """The type in a reward whose score has no gradient, if there is one: it cannot be climbed."""
    parts = [part.reward for part in reward.parts] if isinstance(reward, WeightedSumReward) else [reward]
    return next((part.type for part in parts if isinstance(part, JpegSizeReward | RemoteReward)), None)


def reward_name(reward: _SingleReward | WeightedSumReward) -> str:
    """The reward's column name in reports and metrics."""
    return reward.name or reward.type


def check_unique_names(rewards: Sequence[_SingleReward | WeightedSumReward], *places: str) -> None:
    """A misfit at `places` that names the names that two rewards share."""
    names = [reward_name(reward) for reward in rewards]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise misfit(f"reward names must be unique; set `name` to tell these apart: {', '.join(repeated)}", *places)
