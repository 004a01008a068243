"""Training steps of whole decoders."""

import torch
import torch.nn.functional as F

from aft_lens.models import Decoder, DecoderConfig
from analyses.bench.causal.record import StepRow
from analyses.bench.gpu.models import mixed
from analyses.bench.gpu.timing import replayed

CONFIG = DecoderConfig(length=4096, embed_dim=384, depth=12, num_heads=6, window_size=32, bias_rank=128, dropout=0.0)
MIXERS = ("aft_local", "attention")
BATCH = 8
REPLAYS = 9


def step_row(config: DecoderConfig, batch: int) -> StepRow:
    """Median time and peak memory of a step: bfloat16 autocast, blocks compiled, fused AdamW, one CUDA graph."""
    torch.compiler.reset()
    torch.manual_seed(0)
    model = Decoder(config).cuda().train()
    for block in model.blocks:
        block.compile()
    symbols = torch.randint(config.vocab_size, (batch, config.length), device="cuda")
    optimizer = torch.optim.AdamW(model.parameters(), fused=True, capturable=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with mixed():
            logits = model(symbols)
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), symbols[:, 1:].flatten())
        loss.backward()
        optimizer.step()

    for _ in range(2):
        step()
    torch.cuda.reset_peak_memory_stats()
    step()
    peak = torch.cuda.max_memory_allocated() / 2**30
    time = replayed([step], REPLAYS).median / 1e3
    return StepRow(config.mixer, batch, config.length, time, peak)
