#!/usr/bin/python3
"""GStreamer as the receiver of a bench's room: `webrtcbin`, `avdec_h264` and `compositor` onto 1920x1080.
Arguments: port of the signalling, number of streams. It sends nothing."""
import json
import math
import sys
import threading
import time
import urllib.request

import gi

for library in ('Gst', 'GstSdp', 'GstWebRTC'):
    gi.require_version(library, '1.0')
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

PORT, STREAMS = int(sys.argv[1]), int(sys.argv[2])
COLUMNS = math.ceil(math.sqrt(STREAMS + 1))
WIDTH, HEIGHT = 1920 // COLUMNS, 1080 // math.ceil((STREAMS + 1) / COLUMNS)
# `object-fit: cover` of 640x480 in a tile that is wider than that.
CUT = max(0, 480 - 640 * HEIGHT // WIDTH) // 2
TILE = (f'videocrop top={CUT} bottom={CUT} ! clockoverlay time-format=peer valignment=bottom halignment=left '
        'font-desc="Sans 20" ! queue max-size-buffers=2')


def ask(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(f'http://127.0.0.1:{PORT}{path}', data)) as answer:
        return json.load(answer)


def tell(**event):
    threading.Thread(target=ask, args=('/event', dict(event, role='recv')), daemon=True).start()


class Stream:
    """One connection and its tile."""

    def __init__(self, pipeline, index):
        self.pipeline, self.index, self.decoded, self.kept = pipeline, index, 0, []
        self.rtc = Gst.ElementFactory.make('webrtcbin')
        self.rtc.set_property('bundle-policy', 'max-bundle')
        self.rtc.set_property('latency', 20)
        self.rtc.connect('pad-added', self.show)
        self.rtc.connect('notify::ice-gathering-state', self.answer)
        # The binding frees what nobody holds while it is in use: the agent, and below the descriptions.
        self.kept.append(self.rtc.get_property('ice-agent'))
        self.kept[0].emit('add-local-ip-address', '127.0.0.1')
        pipeline.add(self.rtc)
        self.rtc.sync_state_with_parent()
        threading.Thread(target=self.take_offer, daemon=True).start()

    def take_offer(self):
        while not (offer := ask(f'/get?key=offer{self.index}')):
            time.sleep(0.02)
        _, sdp = GstSdp.SDPMessage.new_from_text(offer['sdp'])
        description = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.OFFER, sdp)
        self.rtc.emit('set-remote-description', description, Gst.Promise.new_with_change_func(self.create))

    def create(self, _promise):
        self.rtc.emit('create-answer', None, Gst.Promise.new_with_change_func(self.describe))

    def describe(self, promise):
        reply = promise.get_reply()
        self.kept += [reply, reply.get_value('answer')]
        self.rtc.emit('set-local-description', self.kept[-1], Gst.Promise.new())

    def answer(self, rtc, _property):
        if rtc.get_property('ice-gathering-state') == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            threading.Thread(target=self.send_answer, daemon=True).start()

    def send_answer(self):
        while not (description := self.rtc.get_property('local-description')):
            time.sleep(0.01)
        ask(f'/put?key=answer{self.index}', {'type': 'answer', 'sdp': description.sdp.as_text()})

    def show(self, _rtc, pad):
        if pad.get_direction() != Gst.PadDirection.SRC:
            return
        chain = Gst.parse_bin_from_description(f'rtph264depay ! h264parse ! avdec_h264 name=decoder ! {TILE}', True)
        self.pipeline.add(chain)
        chain.sync_state_with_parent()
        pad.link(chain.get_static_pad('sink'))
        chain.get_static_pad('src').link(self.pipeline.get_by_name('screen').get_static_pad(f'sink_{self.index}'))
        source = chain.get_by_name('decoder').get_static_pad('src')
        source.add_probe(Gst.PadProbeType.BUFFER, self.count)

    def count(self, _pad, _info):
        self.decoded += 1
        if self.decoded == 1:
            tell(event='first', tile=f'peer-{self.index}')
        return Gst.PadProbeReturn.OK


Gst.init(None)
places = ''.join(
    f' sink_{i}::xpos={i % COLUMNS * WIDTH} sink_{i}::ypos={i // COLUMNS * HEIGHT}'
    f' sink_{i}::width={WIDTH} sink_{i}::height={HEIGHT}' for i in range(STREAMS + 1))
pipeline = Gst.parse_launch(
    f'compositor name=screen background=black{places}'
    ' ! video/x-raw,format=BGRx,width=1920,height=1080,framerate=30/1 ! fakesink sync=true'
    ' videotestsrc num-buffers=1 ! video/x-raw,format=I420,width=640,height=480 ! imagefreeze is-live=true'
    f' ! video/x-raw,framerate=30/1 ! {TILE} ! screen.sink_{STREAMS}')
# The compositor's own pads are asked for before anything is linked, so that each tile has its place.
for i in range(STREAMS):
    if not pipeline.get_by_name('screen').get_static_pad(f'sink_{i}'):
        pipeline.get_by_name('screen').request_pad_simple(f'sink_{i}')
pipeline.set_state(Gst.State.PLAYING)
streams = [Stream(pipeline, index) for index in range(STREAMS)]
GLib.timeout_add(1000, lambda: tell(event='second', decoded=[stream.decoded for stream in streams]) or True)
GLib.MainLoop().run()
