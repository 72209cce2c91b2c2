"""The API: one committed row, one message, one 202."""
import uuid
from contextlib import asynccontextmanager

import orjson
import sqlalchemy as sa
from fastapi import FastAPI, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import create_async_engine

from common import DATABASE_URL, SQL_CONNECTIONS, queue

tasks = sa.Table(
    "tasks",
    sa.MetaData(),
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("state", sa.Text),
    sa.Column("model", sa.Text),
    sa.Column("request", JSONB),
    sa.Column("result", JSONB),
    sa.Column("error", sa.Text),
    sa.Column("attempts", sa.Integer),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("started_at", sa.DateTime(timezone=True)),
    sa.Column("finished_at", sa.DateTime(timezone=True)),
)
# orjson takes no subclasses of str, which SQLAlchemy's column names are.
COLUMNS = [str.__str__(column.name) for column in tasks.columns]
INSERT = sa.insert(tasks)
SELECT = sa.select(tasks).where(tasks.c.id == sa.bindparam("key"))

engine = create_async_engine(
    sa.make_url(DATABASE_URL).set(drivername="postgresql+asyncpg"),
    pool_size=SQL_CONNECTIONS,
    max_overflow=0,
    # Every request is one statement, which commits by itself; nothing is left to be rolled back.
    isolation_level="AUTOCOMMIT",
    pool_reset_on_return=None,
    json_serializer=lambda value: orjson.dumps(value).decode(),
    json_deserializer=orjson.loads,
)


class Message(BaseModel):
    model_config = ConfigDict(extra="allow")
    role: str
    content: str


class Task(BaseModel):
    """Fields that are not named here are the upstream's business and go there untouched."""

    model_config = ConfigDict(extra="allow")
    model: str
    messages: list[Message]
    max_tokens: int | None = None


@asynccontextmanager
async def lifespan(_: FastAPI):
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan, openapi_url=None)


def answer(value, status: int = 200) -> Response:
    # asyncpg's UUID is a subclass, which orjson leaves to `default`.
    return Response(orjson.dumps(value, default=str), status, media_type="application/json")


@app.post("/tasks", status_code=202)
async def submit(task: Task):
    key, request = uuid.uuid4(), task.model_dump(exclude_unset=True)
    async with engine.connect() as connection:
        await connection.execute(INSERT, {"id": key, "model": task.model, "request": request})
    # This blocks the loop for a round trip to Redis, which costs less than handing it to a thread.
    queue.send_task("infer", (str(key), request), task_id=str(key), argsrepr="", kwargsrepr="")
    return answer({"id": str(key), "state": "queued"}, 202)


@app.get("/tasks/{key}")
async def read(key: uuid.UUID):
    async with engine.connect() as connection:
        row = (await connection.execute(SELECT, {"key": key})).first()
    if row is None:
        return answer({"error": "there is no such task"}, 404)
    return answer(dict(zip(COLUMNS, row)))


@app.get("/healthz")
async def healthz():
    return Response()
