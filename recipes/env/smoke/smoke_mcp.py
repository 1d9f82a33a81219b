"""The MCP SDK calls a tool of a server in a child process over stdio."""

import asyncio
import json
import sys
import tempfile
from importlib.metadata import version

print("step: import")
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

SERVER = """
from mcp.server.fastmcp import FastMCP
server = FastMCP("smoke")
@server.tool()
def add(a: int, b: int) -> int:
    return a + b
server.run()
"""


async def main():
    with tempfile.NamedTemporaryFile("w", suffix=".py") as f:
        f.write(SERVER)
        f.flush()
        async with stdio_client(StdioServerParameters(command=sys.executable, args=[f.name])) as (read, write):
            async with ClientSession(read, write) as session:
                await session.initialize()
                said = await session.call_tool("add", {"a": 2, "b": 3})
                assert said.content[0].text == "5"


print("step: call a tool")
asyncio.run(main())
print(json.dumps({"version": version("mcp"), "device": "", "tested": ["import", "call a tool over stdio"]}))
