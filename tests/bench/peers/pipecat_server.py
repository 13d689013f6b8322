"""Telephone bridge made of pipecat, as its documentation builds one.

FastAPI websocket, Twilio serializer, OpenAI Realtime service, in a separate environment. Where the documentation leaves a
choice, it is made in pipecat's favour: 8 kHz in the pipeline, as recommended for Twilio, so that audio is resampled once each
way and not twice (the service uses 24 kHz only, whatever format the session asks for); no voice detection, turn tracking,
metrics, observers or idle timer; no log; uvicorn with uvloop and httptools; no hang-up over REST. The pipeline is the
documented one, with its context aggregators.

Source: docs.pipecat.ai, "TwilioFrameSerializer", "FastAPI WebSocket"; pipecat's examples/realtime/realtime-openai.py, 1.14.0.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import lifeline
import uvicorn
from fastapi import FastAPI, Response, WebSocket
from loguru import logger
from pipecat.frames.frames import LLMRunFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.runner.utils import parse_telephony_websocket
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.services.openai.realtime.events import AudioConfiguration, AudioInput, SemanticTurnDetection, SessionProperties
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.workers.runner import WorkerRunner

_TWILIO_HZ = 8000
_TWIML = (
    '<?xml version="1.0" encoding="UTF-8"?><Response><Connect><Stream url="ws://127.0.0.1:{port}/media"/></Connect></Response>'
)


async def converse(websocket: WebSocket, ai_url: str) -> None:
    """Serve one call, from its websocket's upgrade to its end."""
    await websocket.accept()
    _, call = await parse_telephony_websocket(websocket)
    serializer = TwilioFrameSerializer(
        stream_sid=call["stream_id"],
        call_sid=call["call_id"],
        params=TwilioFrameSerializer.InputParams(auto_hang_up=False),
    )
    transport = FastAPIWebsocketTransport(
        websocket=websocket,
        params=FastAPIWebsocketParams(
            audio_in_enabled=True,
            audio_out_enabled=True,
            add_wav_header=False,
            audio_out_end_silence_secs=0,
            serializer=serializer,
        ),
    )
    voice = OpenAIRealtimeLLMService(
        api_key="none-is-needed-for-the-twin",
        base_url=ai_url,
        settings=OpenAIRealtimeLLMService.Settings(
            system_instruction="You are on the telephone.",
            session_properties=SessionProperties(
                audio=AudioConfiguration(input=AudioInput(turn_detection=SemanticTurnDetection()))
            ),
        ),
    )
    listener, speaker = LLMContextAggregatorPair(LLMContext([{"role": "developer", "content": "Say hello."}]))
    worker = PipelineWorker(
        Pipeline([transport.input(), listener, voice, transport.output(), speaker]),
        params=PipelineParams(audio_in_sample_rate=_TWILIO_HZ, audio_out_sample_rate=_TWILIO_HZ),
        enable_rtvi=False,
        enable_turn_tracking=False,
        check_dangling_tasks=False,
        idle_timeout_secs=None,
    )

    @transport.event_handler("on_client_connected")
    async def on_client_connected(_transport: Any, _client: Any) -> None:
        await worker.queue_frames([LLMRunFrame()])

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(_transport: Any, _client: Any) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


def application(port: int, ai_url: str) -> FastAPI:
    app = FastAPI()

    @app.post("/twilio/voice")
    async def voice() -> Response:
        return Response(_TWIML.format(port=port), media_type="text/xml")

    @app.websocket("/media")
    async def media(websocket: WebSocket) -> None:
        await converse(websocket, ai_url)

    return app


def main() -> None:
    options = argparse.ArgumentParser(description="A telephone bridge made of pipecat.")
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--ai-url", required=True)
    given = options.parse_args()
    lifeline.hold()
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    uvicorn.run(application(given.port, given.ai_url), host="127.0.0.1", port=given.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
