from growlm.model.decoder import Decoder
from growlm.plan.layout import Layout


def recompute(part: Decoder, layout: Layout) -> None:
    pass
