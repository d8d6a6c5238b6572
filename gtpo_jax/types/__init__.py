"""Core types of the library: host records of episodes, device batches, and protocols.

Host records (`Problem`, `Turn`, `Trajectory`, `ToolResult`) are frozen and ragged: the rollout
writes them once, everything else only reads them. `TokenBatch` and `EpisodeBatch` go to the device.
Containers hold data and check nothing: public functions validate their arguments.
"""

from gtpo_jax.types.batches import (
    Cache,
    EpisodeBatch,
    GroupShare,
    Params,
    Scalar,
    TokenBatch,
)
from gtpo_jax.types.protocols import (
    ClosingTool,
    ForwardFn,
    HiddenFn,
    StatisticsFn,
    SubmittingVerifier,
    TemplateTokenizer,
    Tokenizer,
    Tool,
    Verifier,
)
from gtpo_jax.types.records import (
    AnswerTokens,
    Candidates,
    GoldAnswer,
    Problem,
    Request,
    StopReason,
    StreamTest,
    ToolResult,
    ToolStatus,
    Trajectory,
    Turn,
    UnitTests,
    Verdict,
)

__all__ = [
    "AnswerTokens",
    "Cache",
    "Candidates",
    "ClosingTool",
    "EpisodeBatch",
    "ForwardFn",
    "GoldAnswer",
    "GroupShare",
    "HiddenFn",
    "Params",
    "Problem",
    "Request",
    "Scalar",
    "StatisticsFn",
    "StopReason",
    "StreamTest",
    "SubmittingVerifier",
    "TemplateTokenizer",
    "TokenBatch",
    "Tokenizer",
    "Tool",
    "ToolResult",
    "ToolStatus",
    "Trajectory",
    "Turn",
    "UnitTests",
    "Verdict",
    "Verifier",
]
