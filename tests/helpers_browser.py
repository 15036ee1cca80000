# SPDX-License-Identifier: Apache-2.0
"""A real browser that tests drive: Chromium without a window, told what to do over a pipe.

Chromium speaks the DevTools protocol over two file descriptors (--remote-debugging-pipe), so that
neither a driver nor a package is needed.
"""
import base64
import json
import os
import select
import shutil
import subprocess
import time
import warnings
from pathlib import Path

import pytest

SERIOUS = ('serious', 'critical')
# Nothing that a browser does by itself: no updates, no first page, no QUIC, no GPU.
FLAGS = ('--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
         '--disable-background-networking', '--disable-component-update', '--disable-sync',
         '--disable-dev-shm-usage', '--hide-scrollbars', '--remote-debugging-pipe')


def browser_name():
    """The command of Chromium or Chrome, or None."""
    return next(filter(shutil.which, ('chromium', 'chromium-browser', 'google-chrome',
                                      'google-chrome-stable')), None)


class Browser:
    """One browser with one page.

    Attributes:
        asked: addresses that the page asked for, without data: ones.
        console: what its console said.
    """

    def __init__(self, profile):
        (to_read, self._write), (self._read, to_write) = os.pipe(), os.pipe()

        def as_3_and_4():
            os.dup2(to_read, 3)
            os.dup2(to_write, 4)

        # Above 4, so that dup2 overwrites neither.
        to_read, to_write = (_above(fd) for fd in (to_read, to_write))
        self.process = subprocess.Popen(
            [browser_name(), *FLAGS, f'--user-data-dir={profile}'], preexec_fn=as_3_and_4,
            close_fds=False, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        os.close(to_read)
        os.close(to_write)
        self._number, self._rest, self._session = 0, b'', None
        self.asked, self.console = [], []
        target = self.tell('Target.createTarget', url='about:blank')['targetId']
        self._session = self.tell('Target.attachToTarget', targetId=target,
                                  flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Network', 'DOM', 'Log'):
            self.tell(f'{domain}.enable')

    def tell(self, method, **params):
        """Sends a command; gives its result."""
        self._number += 1
        message = dict(id=self._number, method=method, params=params)
        if self._session:
            message['sessionId'] = self._session
        os.write(self._write, json.dumps(message).encode() + b'\0')
        while True:
            answer = self._next()
            if answer.get('id') == self._number:
                assert 'error' not in answer, f'{method}: {answer["error"]}'
                return answer['result']

    def open(self, address, width=1280, dark=False):
        """Opens an address at a width of the window, and waits until it is there."""
        self.look(width, dark)
        self.asked.clear()
        self.console.clear()
        self.tell('Page.navigate', url=str(address))
        self.wait('document.readyState == "complete" && location.href != "about:blank"')

    def look(self, width=1280, dark=False, height=None):
        """Sets the window, and whether it is dark."""
        self.tell('Emulation.setDeviceMetricsOverride', width=width, height=height or (
            844 if width < 500 else 900), deviceScaleFactor=1, mobile=width < 500)
        self.tell('Emulation.setEmulatedMedia', features=[
            dict(name='prefers-color-scheme', value='dark' if dark else 'light')])

    def run(self, script):
        """What an expression gives, as plain data; of a promise, what it comes to."""
        answer = self.tell('Runtime.evaluate', expression=script, awaitPromise=True,
                           returnByValue=True)
        assert 'exceptionDetails' not in answer, answer['exceptionDetails']
        return answer['result'].get('value')

    def wait(self, script, seconds=20):
        """Waits until an expression is true; gives the seconds that took."""
        start = time.monotonic()
        while not self.run(f'Boolean({script})'):
            assert time.monotonic() < start + seconds, f'never came true: {script}'
            time.sleep(0.02)
        return time.monotonic() - start

    def press(self, key, times=1):
        """Presses a key, such as Tab or ArrowLeft."""
        code = dict(Tab=9, Enter=13, ArrowLeft=37, ArrowUp=38, ArrowRight=39, ArrowDown=40)[key]
        text = dict(text='\r') if key == 'Enter' else {}
        for _ in range(times):
            for kind in ('keyDown', 'keyUp'):
                self.tell('Input.dispatchKeyEvent', type=kind, key=key, code=key,
                          windowsVirtualKeyCode=code, **(text if kind == 'keyDown' else {}))

    def click(self, selector, x=0.5, y=0.5):
        """Clicks on an element, at a place from 0 to 1 over it."""
        left, top, width, height = self.run(
            f'(e => {{e.scrollIntoView({{block: "center"}}); const b = e.getBoundingClientRect();'
            f'return [b.left, b.top, b.width, b.height]}})(document.querySelector("{selector}"))')
        for kind in ('mousePressed', 'mouseReleased'):
            self.tell('Input.dispatchMouseEvent', type=kind, x=left + x * width,
                      y=top + y * height, button='left', clickCount=1)

    def give_file(self, selector, path):
        """Chooses a file in an <input type=file>."""
        root = self.tell('DOM.getDocument')['root']['nodeId']
        node = self.tell('DOM.querySelector', nodeId=root, selector=selector)['nodeId']
        self.tell('DOM.setFileInputFiles', nodeId=node, files=[str(path)])

    def picture_to(self, path, most=6000):
        """Writes the whole page as a PNG."""
        height = min(most, self.run('Math.ceil(document.documentElement.scrollHeight)'))
        width = self.run('innerWidth')
        data = self.tell('Page.captureScreenshot', captureBeyondViewport=True, clip=dict(
            x=0, y=0, width=width, height=height, scale=1))['data']
        Path(path).write_bytes(base64.b64decode(data))

    def findings(self):
        """What axe-core finds that is serious: (rule, element) each."""
        import axe_core_python
        script = Path(axe_core_python.__file__).parent / 'axe.min.js'
        self.run(script.read_text(encoding='utf-8') + ';0')
        found = self.run('axe.run().then(r => r.violations)')
        return [(one['id'], node['html'][:200]) for one in found if one['impact'] in SERIOUS
                for node in one['nodes']]

    def close(self):
        self.process.terminate()
        self.process.wait(10)
        os.close(self._write)
        os.close(self._read)

    def _next(self):
        while b'\0' not in self._rest:
            ready, _, _ = select.select([self._read], [], [], 60)
            assert ready, 'the browser has not answered for a minute'
            more = os.read(self._read, 2**20)
            assert more, 'the browser has ended'
            self._rest += more
        message, _, self._rest = self._rest.partition(b'\0')
        message = json.loads(message)
        params = message.get('params', {})
        if message.get('method') == 'Network.requestWillBeSent':
            address = params['request']['url']
            if not address.startswith(('data:', 'about:')):
                self.asked.append(address)
        elif message.get('method') == 'Runtime.consoleAPICalled':
            self.console.append(str(params['args']))
        elif message.get('method') == 'Log.entryAdded':
            self.console.append(params['entry']['text'])
        elif message.get('method') == 'Runtime.exceptionThrown':
            self.console.append(str(params['exceptionDetails']))
        return message


def _above(fd):
    """The same file under a number above 4."""
    if fd > 4:
        return fd
    copy = _above(os.dup(fd))
    os.close(fd)
    return copy


@pytest.fixture(scope='session')
def browser(tmp_path_factory):
    """A browser for all tests of a process; where there is none, they are skipped."""
    if browser_name() is None:
        pytest.skip('needs Chromium or Chrome, and none is installed')
    made = Browser(tmp_path_factory.mktemp('browser'))
    yield made
    made.close()


@pytest.fixture
def look_at(request):
    """``check_in_browser`` of a path, in tests of which that is the smaller part."""
    def check(path):
        if browser_name() is None:
            warnings.warn(f'{path.name} was not opened in a browser: none is installed',
                          stacklevel=2)
        else:
            check_in_browser(request.getfixturevalue('browser'), path)
    return check


def check_in_browser(browser, path):
    """A page that is one file, on a desk and, dark, on a phone: silent, readable by everybody."""
    for width, dark in ((1280, False), (390, True)):
        browser.open(path.as_uri(), width, dark)
        browser.run('document.querySelectorAll("details").forEach(part => { part.open = true; })')
        seen = dict(console=browser.console, asked=browser.asked, axe=browser.findings(),
                    wide=browser.run('document.documentElement.scrollWidth') > width)
        assert seen == dict(console=[], asked=[path.as_uri()], axe=[], wide=False), seen
