"""An explicit HTTP proxy whose CONNECT tunnels are not HTTP any more once it is decided what becomes of them.

mitmproxy keeps a tunnel inside the HTTP stream that asked for it, where the end of one direction closes both.
"""

from dataclasses import dataclass

from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import HttpLayer, HTTPMode


@dataclass(repr=False)
class TakeOver(commands.Command):
    """Asks the ExplicitProxy to put `layer` in its own place; `replay` are the events that it begins with."""

    layer: layer.Layer
    replay: tuple[events.Event, ...]


class ExplicitProxy(layer.Layer):
    """mitmproxy's HTTP proxy, until a layer inside takes the connection over. It doesn't show in the stack."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        context.layers.remove(self)
        self._inner: layer.Layer = HttpLayer(context, HTTPMode.regular)

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        successor: TakeOver | None = None
        for command in self._inner.handle_event(event):
            if isinstance(command, TakeOver):
                successor = command
            else:
                yield command
        if successor is not None:
            self._inner = successor.layer
            for replayed in successor.replay:
                yield from self._inner.handle_event(replayed)
