"""What an online method holds while it judges what it has drawn: TailorPO's prediction waits for its update meanwhile."""

from dataclasses import dataclass

from alignment_core.spec.rollouts import Rollouts

# Times what decoding takes: with the gradient from the image back to the latent. Tensors of SD's VAE on a CPU, 1.49 MB a latent place.
DECODED_WITH_GRADIENT = 2.84


@dataclass(frozen=True)
class Candidates:
    """Bytes that a micro-batch takes while its images are foreseen, while they are decoded, in the policy's backward, and while it waits."""

    drawing: float
    decoding: float
    backward: float
    waiting: float

    def judged(self, method: Rollouts, num_processes: int) -> float:
        """At the most, of TailorPO; what else is online judges whole batches that nothing waits beside.

        Several processes keep no prediction. A winner that climbs its reward's gradient does so through the decoder, and through the
        network that foresees it.
        """
        if not method.keeps_predictions:
            return 0.0
        beside = self.waiting if num_processes == 1 else 0.0
        decoding = DECODED_WITH_GRADIENT * self.decoding
        match method.climbs_through:
            case None:
                return beside + self.drawing + self.decoding
            case "decoder":
                return beside + self.drawing + decoding
            case "network":
                return beside + max(self.waiting + decoding, self.backward)
