"""The peer of serve_rpc: the same question as a FastAPI service, one vector a request, in JSON.

python -m benchmarks.json_peer PORT
"""

from __future__ import annotations

import sys

import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Question(BaseModel):
    space: str
    vector: list[float]


class Answer(BaseModel):
    verdict: str
    complete: bool
    seq: int


@app.post("/match")
async def match(question: Question) -> Answer:
    """What any service does with a vector before it searches, and no more."""
    row = np.asarray(question.vector, np.float32)
    unit = row / np.linalg.norm(row)
    return Answer(verdict="NO_MATCH", complete=bool(np.isfinite(unit).all()), seq=1)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False)
