"""--page: what it writes, and what a real browser makes of that."""

import base64
import contextlib
import json
import re

import numpy as np
import pytest
import tensorflow as tf
from agents import new_agent
from commands import run
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.support.select import Select

from benchmarks import play_picture
from common import networks
from common.errors import UserError
from common.files import weights
from common.files.names import ROOT
from common.flags import Command
from common.pendulum import optimum, page
from common.tasks.making import make
from docs import play_page

FOUND = json.loads((ROOT / "benchmarks" / "pendulum_optimum.json").read_text())["best_return"]
NASTY = "</script><script>document.title = 'taken'</script><img src=x onerror=\"alert('\u2028')\">"
AGENTS = {"DDPG, chapter": [], "TD3, chapter": [], "SAC, chapter": [],
          "TD3, mine": ["--unit-actions", "--no-standardise-rewards", "--reward-scale", "0.1"]}


def data_of(html):
    """What a page holds: (the data, the page without them)."""
    text = re.search(r'<script id="data" type="application/json">(.*?)</script>', html, re.S)[1]
    return json.loads(text), html.replace(text, "@DATA@")


def best_of(data):
    values = np.frombuffer(base64.b64decode(data["best"]["values"]), "<f4")
    return values.reshape(data["best"]["angles"], data["best"]["speeds"])


def starts(seeds):
    """Angle and speed at which the episodes of these seeds start."""
    with contextlib.closing(make("Pendulum-v1")) as env:
        for seed in seeds:
            env.reset(seed=int(seed))
            yield [float(number) for number in env.unwrapped.state]


SHIPPED, SHIPPED_REST = data_of(play_page.PLAY.read_text("utf-8"))


@pytest.fixture(scope="module")
def agents():
    """Agents that have learned nothing, by their names on the page: (agent, its settings)."""
    made = {}
    for name, flags in AGENTS.items():
        algorithm, preset = name.split(", ")
        script = algorithm.lower()
        settings = Command(ROOT / f"{script}.py").read(["--test", *flags])
        settings.preset, settings.task = preset, (*settings.task[:2], preset)
        made[name] = new_agent(script, filled=False), settings
        if settings.unit_actions:
            made[name][0].policy_net.action_range = np.float32(1.0)
    return made


@pytest.fixture(scope="module")
def of_agents(agents, tmp_path_factory):
    """The page of these agents, a file."""
    described = [page.described(*agent) for agent in agents.values()]
    file = tmp_path_factory.mktemp("page") / "page.html"
    start, = starts([2])
    file.write_text(page.filled(described, start, best_of(SHIPPED)), "utf-8")
    return file


# ---- the file


def test_the_shipped_page_is_of_the_shipped_weights_and_the_template():
    agents, start = play_page.shipped()
    made_again = "docs/play.html is stale: python docs/play_page.py"
    assert [SHIPPED["agents"], SHIPPED["start"]] == [agents, list(start)], made_again
    assert page.TEMPLATE.read_text("utf-8") == SHIPPED_REST, made_again


def test_the_shipped_page_has_all_agents_of_pendulum_and_none_of_another_task():
    shipping = set()
    for file in weights.SHIPPED.glob("*/weights.npz"):
        with np.load(file) as arrays:
            if json.loads(arrays["header"].item())["environment"] == "Pendulum-v1":
                shipping.add(file.relative_to(ROOT).as_posix())
    assert {agent["weights"] for agent in SHIPPED["agents"]} == shipping
    first, _, third = (agent["algorithm"] for agent in SHIPPED["agents"][:3])
    assert (first, third) == ("DDPG", "SAC")  # with which the page begins


def test_the_shipped_best_returns_are_those_found():
    """They depend on the machine in the last digits: hold them against the best found."""
    off = optimum.interpolate(best_of(SHIPPED), *np.transpose([*starts(FOUND)]))
    assert np.median(np.abs(off - [*FOUND.values()])) < 0.05


def test_the_template_is_one_file_that_loads_nothing():
    template = page.TEMPLATE.read_text("utf-8")
    assert template.count("@DATA@") == 1
    assert re.findall("<link[^>]*>", template) == ['<link rel="icon" href="data:,">']
    assert not re.findall(r"https?:|//[a-z]|\bimport\b|fetch\(|\bsrc=", template)


def test_a_network_that_the_page_would_compute_otherwise():
    agent = new_agent("td3", filled=False)
    settings = Command(ROOT / "td3.py").read(["--test"])
    agent.q_net1.linear2.act = tf.nn.leaky_relu
    with pytest.raises(UserError, match="--page computes with relu in hidden layers, which q2 has"):
        page.described(agent, settings)


def test_names_are_no_markup():
    agent = dict.fromkeys(["environment", "weights", "preset", "algorithm"], NASTY)
    data, rest = data_of(page.filled([agent], [0.0, 0.0], np.zeros((4, 5), np.float32)))
    assert data["agents"] == [agent]
    assert rest == page.TEMPLATE.read_text("utf-8")


@pytest.mark.slow
def test_a_run_writes_its_agents_page_and_picture(agents, tmp_path):
    agent, _ = agents["TD3, mine"]
    flags = ["--test", "--test-episodes", "1", "--page", "--explain", *AGENTS["TD3, mine"],
             "--image-dir", tmp_path, "--model-dir", tmp_path / "model"]  # units as in the weights
    settings = Command(ROOT / "td3.py").read(list(map(str, flags)))
    networks.save(agent, settings)
    status, out, err = run("td3", *flags)
    assert (status, err) == (0, [])
    picture, file = tmp_path / "td3_Pendulum-v1_explained.png", tmp_path / "td3_Pendulum-v1.html"
    assert out[-2:] == [f"Saved {picture}", f"Saved {file}"]
    assert picture.is_file()
    data, rest = data_of(file.read_text("utf-8"))
    assert data["agents"] == [page.described(agent, settings)]
    assert data["start"] == next(starts([2]))
    assert rest == page.TEMPLATE.read_text("utf-8")


# ---- in the browser


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium, driven by Selenium."""
    with contextlib.ExitStack() as stack:
        try:
            browser = stack.enter_context(play_picture.chromium())
        except FileNotFoundError as error:
            pytest.skip(str(error))
        yield browser


@pytest.fixture
def browser(chromium):
    """The same; in the end nothing may have been said in its console."""
    yield chromium
    assert chromium.get_log("browser") == []


@pytest.fixture
def play(browser, of_agents):
    """The browser with the page of the agents, in English and at rest."""
    opened(browser, of_agents, "en")
    browser.execute_script("play(false); restart(start)")
    return browser


def opened(browser, file, language, width=1280, height=1000):
    play_picture.resize(browser, width, height)
    browser.get("about:blank")
    browser.get(f"{file.as_uri()}#{language}")


def find(browser, selector, index=0):
    return browser.find_elements("css selector", selector)[index]


def panel(browser, expression, index=0):
    """What a panel's script knows, by an expression in `p`."""
    return browser.execute_script(f"const p = panels[{index}]; return {expression}")


def wait_for_maps(browser):
    browser.execute_async_script("""
        const wait = () => panels.every(({ agent }) => agent.valueMap) ? arguments[0]()
          : setTimeout(wait, 50);
        wait();
    """)


def shown(browser, index=0):
    """The numbers of a panel: angle, speed, torque, Q, step, return, best."""
    browser.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0]))")
    numbers = find(browser, ".panel", index).find_elements("css selector", "dd")
    return [number.text.replace("−", "-") for number in numbers]


EPISODES = """
const [index, starts] = arguments, panel = panels[0];
play(false);
panel.agent = data.agents[index];
return starts.map(([angle, speed]) => {
  restart({ angle, speed });
  const states = [], looks = [];
  for (let step = 0; step < 200; step++) {
    states.push([panel.angle, panel.speed]);
    looks.push(panel.agent.look(observe(panel)));
    stepAll();
  }
  return [states, looks.map(({ torque }) => torque), looks.map(({ value }) => value), panel.total];
});
"""


@pytest.mark.parametrize("name", AGENTS)
def test_the_episodes_are_those_of_gym_and_the_networks(play, agents, name):
    """optimum.step() is gym's, see test_optimum.py."""
    agent, settings = agents[name]
    played = play.execute_script(EPISODES, list(AGENTS).index(name), [*starts(range(20))])
    states, torques, values, total = (np.array(part) for part in zip(*played))
    assert states[:, 0].tolist() == [*starts(range(20))]
    angle, speed = np.moveaxis(states, -1, 0)  # each (episode, step)
    observed = np.stack([np.cos(angle), np.sin(angle), speed], -1).reshape(-1, 3).astype("f4")
    actions = agent.greedy_actions(observed)
    limit, scale = (2.0, 0.1) if settings.unit_actions else (1.0, 1.0)
    np.testing.assert_allclose(torques.ravel(), limit * actions[:, 0], rtol=0, atol=1e-5)
    q_values = agent.q_values(observed, actions) / scale
    np.testing.assert_allclose(values.ravel(), q_values, rtol=1e-4, atol=1e-4)
    *after, rewards = optimum.step(angle, speed, torques)
    np.testing.assert_allclose(np.stack(after, -1)[:, :-1], states[:, 1:], rtol=0, atol=1e-6)
    np.testing.assert_allclose(total, rewards.sum(1), rtol=0, atol=1e-6)


def test_the_best_possible_return(play):
    """Close to the best found by the wide search of benchmarks/, and hardly ever above it."""
    script = "return arguments[0].map(([angle, speed]) => bestReturn({ angle, speed }))"
    found = np.array(play.execute_script(script, [*starts(range(20))]))
    off = found - [FOUND[str(seed)] for seed in range(20)]
    assert np.median(off) > -0.2
    assert off.max() < 0.2


def test_the_buttons(play):
    assert shown(play)[4] == "0 / 200"
    find(play, "#step").click()
    assert [shown(play, index)[4] for index in range(2)] == ["1 / 200"] * 2
    find(play, "#play").click()
    assert find(play, "#play").text == "❚❚ Pause"
    find(play, "#play").click()
    assert find(play, "#play").text == "▶ Play"
    find(play, "#again").click()
    assert shown(play)[4:6] == ["0 / 200", "0.0"]
    before = play.execute_script("return start")
    find(play, "#random").click()
    assert play.execute_script("return start") != before
    assert panel(play, "[p.angle, p.speed]") == panel(play, "[p.angle, p.speed]", 1)


def test_it_moves_by_itself_faster_and_slower(play):
    wait_for_maps(play)
    script = "play(true); setTimeout(() => arguments[0](panels[0].steps), 500)"
    find(play, "#tempo").send_keys(Keys.END)
    fast = play.execute_async_script(script)
    play.execute_script("play(false); restart(start)")
    find(play, "#tempo").send_keys(Keys.HOME)
    assert find(play, "label:has(#tempo) output").text == "× 0.125"
    assert play.execute_async_script(script) <= 2 < fast


def test_an_unchanged_episode_stands_beside_the_best(play):
    play.execute_script("for (let step = 0; step < 250; step++) stepAll()")
    *_, steps, total, best = shown(play)
    assert (steps, best) == ("200 / 200", "-115.9")  # as that of seed 2 in pendulum_optimum.json
    assert float(total) < -115.9
    find(play, "#left").click()
    assert shown(play)[6] == "disturbed"
    find(play, "#again").click()
    assert shown(play)[6] == "-115.9"


@pytest.mark.parametrize("kind", ["mouse", "touch"])
def test_a_pendulum_is_dragged(play, kind):
    actions = ActionChains(play)
    if kind == "touch":
        finger = PointerInput("touch", "finger")
        actions.w3c_actions = ActionBuilder(play, mouse=finger, duration=50)
    pointer, canvas = actions.w3c_actions.pointer_action, find(play, ".pendulum")
    pointer.move_to(canvas, 0, 50).pointer_down()
    pointer.move_to(canvas, 40, 40).move_to(canvas, 70, 0)
    actions.w3c_actions.perform()
    assert panel(play, "p.held")
    assert panel(play, "p.angle") == pytest.approx(-np.pi / 2, abs=0.05)
    assert shown(play)[6] == "disturbed"
    find(play, "#step").send_keys(" ")  # the other one moves on, this one is held
    assert [shown(play, index)[4] for index in range(2)] == ["0 / 200", "1 / 200"]
    play.execute_script("panels[0].pendulum.dispatchEvent(new PointerEvent('pointerup'))")
    assert not panel(play, "p.held")
    actions.w3c_actions.clear_actions()


def test_the_keys(play):
    body, speed = find(play, "body"), panel(play, "p.speed")
    body.send_keys(Keys.ARROW_LEFT)
    assert panel(play, "p.speed") == pytest.approx(speed + 2)
    body.send_keys(Keys.ARROW_RIGHT)
    assert panel(play, "p.speed", 1) == pytest.approx(speed)
    body.send_keys("s")
    assert panel(play, "p.steps") == 1
    body.send_keys("a")
    assert panel(play, "p.steps") == 0
    for playing in (True, False):
        body.send_keys(" ")
        assert play.execute_script("return playing") is playing
    find(play, "#angle").send_keys(Keys.END)
    find(play, "#speed").send_keys(Keys.HOME)
    assert [shown(play, index)[:2] for index in range(2)] == [["3.14", "-8.00"]] * 2


@pytest.mark.parametrize("name", ["torque", "noise", "gravity"])
def test_a_disturbed_world(play, name):
    play.execute_script("for (let step = 0; step < 30; step++) stepAll()")
    undisturbed = panel(play, "[p.angle, p.speed]")
    find(play, "#again").click()
    find(play, f"#{name}").send_keys(Keys.END)
    assert shown(play)[6] == "-115.9"  # nothing has happened yet
    play.execute_script("for (let step = 0; step < 30; step++) stepAll()")
    assert shown(play)[6] == "disturbed"
    assert panel(play, "[p.angle, p.speed]") != undisturbed


def test_maps_tell_and_start_any_state(play):
    map_shown = find(play, ".policy")
    ActionChains(play).move_to_element_with_offset(map_shown, 40, 40).perform()
    angle, speed, torque, value = re.findall(
        r"[-\d.]+(?= rad,| rad/s| N m|$)", find(play, ".probe").text.replace("−", "-"))
    look = panel(play, f"p.agent.look(observe({{ angle: {angle}, speed: {speed} }}))")
    assert float(torque) == pytest.approx(look["torque"], abs=0.1)
    assert float(value) == pytest.approx(look["value"], abs=0.5)
    ActionChains(play).click().perform()
    assert [shown(play, index)[:2] for index in range(2)] == [[angle, speed]] * 2
    map_shown.send_keys(Keys.ARROW_UP, Keys.ARROW_LEFT)
    at = panel(play, "p.probed")
    assert at["speed"] == pytest.approx(float(speed) + 0.25, abs=0.01)
    assert at["angle"] == pytest.approx(float(angle) - np.pi / 36, abs=0.01)
    map_shown.send_keys(Keys.ENTER)
    assert panel(play, "p.speed", 1) == at["speed"]


def test_an_agent_is_chosen(play):
    find(play, "#step").click()
    choice = Select(find(play, "select", 1))
    assert [option.text for option in choice.options] == [*AGENTS]
    choice.select_by_visible_text("TD3, mine")
    assert panel(play, "p.agent.algorithm + p.agent.preset", 1) == "TD3mine"
    assert [shown(play, index)[4] for index in range(2)] == ["0 / 200"] * 2  # from one start
    assert "model/TD3_Pendulum-v1_mine/weights.npz" in find(play, "#files").text
    wait_for_maps(play)


def test_the_other_language(play):
    shown(play)
    english = find(play, "body").text
    find(play, "#language").click()
    chinese = find(play, "body").text
    assert find(play, "html").get_attribute("lang") == "zh-CN"
    # Only names, units and files stay.
    words = set(re.findall("[A-Za-z]{3,}", chinese))
    assert words <= {"DDPG", "TD3", "SAC", "rad", "English", "model", "Pendulum", "weights", "npz",
                     "mine"}
    find(play, "#language").click()
    shown(play)
    assert find(play, "body").text == english
    assert not re.findall("[\u4e00-\u9fff]", english.replace("中文", ""))


SMALL = """
const sizes = [...document.querySelectorAll("body *")].filter((node) =>
  [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim()))
  .filter((node) => node.offsetParent).map((node) => parseFloat(getComputedStyle(node).fontSize));
const pen = panels[0].maps[0].getContext("2d");
return [...sizes, parseFloat(pen.font)];
"""


@pytest.mark.parametrize(("width", "language"),
                         [(1280, "en"), (1280, "zh"), (390, "en"), (320, "zh")])
def test_any_width(browser, of_agents, width, language):
    """And on a screen of 1280 x 800, sliders and maps are seen without scrolling."""
    opened(browser, of_agents, language, width, height=660)  # which a browser leaves of that
    shown(browser)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert min(browser.execute_script(SMALL)) >= 12
    if width == 1280:
        sliders, maps = browser.execute_script("""
            return ["input", "canvas"].map((kind) => Math.max(
              ...[...document.querySelectorAll(kind)]
                .map((node) => node.getBoundingClientRect().bottom)));
        """)
        assert sliders < 130  # above the agents
        assert maps <= 660


def test_everything_can_be_reached_by_keyboard_and_has_a_name(play):
    unnamed = play.execute_script("""
        return [...document.querySelectorAll("button, select, input, canvas")].filter((node) =>
          !(node.textContent.trim() && !node.matches("select")) && !node.ariaLabel
          && !node.labels?.length).map((node) => node.outerHTML);
    """)
    assert unnamed == []
    order = play.execute_script("""
        return [...document.querySelectorAll("button, select, input, .map canvas")]
          .map((node) => { node.focus(); return document.activeElement === node; });
    """)
    assert all(order)


def test_it_starts_by_itself_unless_less_motion_is_wished(browser, of_agents):
    for wish in ("", "reduce"):
        features = [{"name": "prefers-reduced-motion", "value": wish}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        opened(browser, of_agents, "en")
        assert browser.execute_script("return playing") is (not wish)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


NOTE_MAPS = """
window.stepsWhenShown = new Map();  // by a map's canvas, the steps played when it first was drawn
const { drawImage } = CanvasRenderingContext2D.prototype;
CanvasRenderingContext2D.prototype.drawImage = function (...what) {
  drawImage.apply(this, what);
  if (!stepsWhenShown.has(this.canvas)) {
    stepsWhenShown.set(this.canvas, panels.map(({ steps }) => steps));
  }
};
"""
ONCE_PLAYING = """
const wait = () => panels.every(({ steps }) => steps > 0)
  ? arguments[0]([...stepsWhenShown.values()]) : setTimeout(wait, 10);
wait();
"""
CHOOSE = """
const { select } = panels[0];
select.value = 1;
select.onchange();
stepsWhenShown.clear();
"""


def test_nothing_is_played_before_all_maps_are_drawn(browser, of_agents):
    """On a slow machine, too; also when another agent is chosen."""
    note = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": NOTE_MAPS})
    browser.execute_cdp_cmd("Emulation.setCPUThrottlingRate", {"rate": 8})
    try:
        opened(browser, of_agents, "en")
        for script in "", CHOOSE:
            steps = browser.execute_async_script(script + ONCE_PLAYING)
            assert steps == [[0, 0]] * 4  # two maps of two agents
    finally:
        browser.execute_cdp_cmd("Emulation.setCPUThrottlingRate", {"rate": 1})
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", note)


def test_the_page_of_one_agent_with_nasty_names(browser, agents, tmp_path):
    agent = page.described(*agents["TD3, chapter"])
    agent |= dict.fromkeys(["environment", "weights", "preset"], NASTY)
    file = tmp_path / "a 'folder' \" & <b>" / "page.html"
    file.parent.mkdir()
    file.write_text(page.filled([agent], [1.0, 0.0], np.zeros((4, 5), np.float32)), "utf-8")
    opened(browser, file, "en")
    files = browser.execute_script("return document.querySelector('#files').textContent")
    assert files == f"{NASTY} ({NASTY})"
    assert browser.title.endswith(f"TD3, {NASTY}")
    assert len(browser.find_elements("css selector", "script")) == 2
    assert browser.find_elements("css selector", "img") == []
    assert len(browser.find_elements("css selector", ".panel")) == 1
    assert not find(browser, "select").is_displayed()
