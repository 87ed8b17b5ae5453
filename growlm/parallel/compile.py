from growlm.model.decoder import Decoder


def compile_blocks(part: Decoder) -> None:
    pass
