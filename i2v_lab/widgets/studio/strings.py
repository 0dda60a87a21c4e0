"""Every text of the studio, in English and Chinese. A language is a column here and nothing else.

Messages of other modules (advice, errors, waiting) are translated by their code; a message without a known code stays English.
"""

from __future__ import annotations

from typing import Any

from i2v_lab.clip.params import Advice
from i2v_lab.cost.timing import duration
from i2v_lab.errors import PROCESS_ENDED, STOPPED_BY_HAND, InputError
from i2v_lab.jobs import DIED

LANGUAGES = ("en", "zh")

# key: (English, Chinese)
TEXTS: dict[str, tuple[str, str]] = {
    "name": ("Studio", "创作室"),
    "about": ("device {device} · clips go to {folder}", "设备 {device} · 片段存到 {folder}"),
    "clip_tab": ("Clip", "片段"),
    "sweep_tab": ("Sweep", "参数扫描"),
    # the picture
    "choose": ("Choose", "选择"),
    "choose_file": (
        "Choose a picture or a clip; or drop it anywhere on the studio, or paste it",
        "选择图片或片段；也可拖到任意处，或粘贴",
    ),
    "hint": (
        "Drop a picture here, click, or paste. A clip restores the settings that made it.",
        "把图片拖到这里，点击选择，或粘贴。拖入片段可恢复其参数。",
    ),
    "sending": ("sending", "正在上传"),
    "slow": ("waiting for the kernel to answer; is a cell running?", "正在等待内核响应；是否有单元格正在运行？"),
    "sample": ("sample photo…", "示例照片…"),
    "sample_coffee": ("coffee", "咖啡"),
    "sample_cat": ("cat", "猫"),
    "sample_astronaut": ("astronaut", "宇航员"),
    "sample_rocket": ("rocket", "火箭"),
    "sample_motorcycle": ("motorcycle", "摩托车"),
    "picture_alt": (
        "{name}, {width} × {height} pixels; the part that the clip leaves out is dark",
        "{name}，{width} × {height} 像素；暗处不会进入片段",
    ),
    "no_picture": (
        "choose a picture: drop one above, enter its path, or take a sample",
        "请选择图片：拖到上方、输入路径或选用示例",
    ),
    # the controls
    "preset": ("Preset", "预设"),
    "preset_quick": ("quick", "快速"),
    "preset_standard": ("standard", "标准"),
    "preset_high": ("high", "高质量"),
    "preset_extreme": ("extreme", "极致"),
    "advanced": ("More settings", "更多参数"),
    "new_seed": ("Another seed, at random", "随机换一个种子"),
    "force": ("Make it again even if it was made before", "已有相同片段也重新生成"),
    "force_help": (
        "Otherwise the clip that was made with the same settings is shown",
        "否则直接显示以相同参数生成过的片段",
    ),
    "generate": ("Generate", "生成"),
    "queue": ("Queue another", "加入队列"),
    "generate_help": ("Make this clip; while another is being made, it waits in the queue", "生成片段；若正在生成则排队等候"),
    "stop": ("Stop", "停止"),
    "stop_help": ("Stop the running clip after this step; the queue goes on", "在当前步后停止；队列继续"),
    # what is being made
    "ready": ("Ready.", "就绪。"),
    "ready_hint": ("Clips are made one at a time; others wait here in the queue.", "每次生成一个片段；其余请求在此排队。"),
    "making": ("Making", "正在生成"),
    "left": ("about {time} left", "约剩 {time}"),
    "waits": ("{number}. in the queue:", "队列第 {number}："),
    "take_out": ("Remove from the queue", "移出队列"),
    "sweep_called": ("sweep {name}", "参数扫描 {name}"),
    "no_prompt": ("(no prompt)", "（无提示词）"),
    "preview": ("The clip while it is being made", "生成中的预览"),
    "stage_load": ("load", "载入"),
    "stage_encode": ("encode", "编码"),
    "stage_denoise": ("denoise", "去噪"),
    "stage_decode": ("decode", "解码"),
    "stage_write": ("write", "写入"),
    # the clip
    "nothing_yet": ("The clip will play here.", "片段将在这里播放。"),
    "saved": ("Saved", "保存于"),
    "time": ("Time", "用时"),
    "memory": ("Memory", "占用"),
    "ram": ("RAM", "内存"),
    "vram": ("GPU", "显存"),
    "predicted": ("predicted", "预计"),
    "metrics": ("Metrics", "指标"),
    "notes": ("Notes", "备注"),
    "made_before": ("this clip was made before with the same settings: nothing was computed", "之前已用相同参数生成：未重新计算"),
    "small_copy": ("the file is large: a small copy plays here", "文件较大：此处播放缩小的副本"),
    "clip_gone": ("{clip} is no longer there; Generate makes it again", "{clip} 已不存在；点“生成”可重新生成"),
    "done": ("done", "完成"),
    "failed": ("failed", "失败"),
    "out_of_memory": ("out of memory", "内存不足"),
    "stopped": ("stopped", "已停止"),
    "running": ("running", "运行中"),
    "planned": ("planned", "待运行"),
    "gone": ("clip is gone", "片段已丢失"),
    "to_do": ("to do", "待运行"),
    "cannot_run": ("cannot run", "无法运行"),
    "summary": (
        "{resolution} · {frames} frames · {steps} steps · guidance {guidance} · seed {seed}",
        "{resolution} · {frames} 帧 · {steps} 步 · 引导 {guidance} · 种子 {seed}",
    ),
    "detail": ("guidance {guidance} · seed {seed}", "引导 {guidance} · 种子 {seed}"),
    "fits": (
        "fits{tier}: {peak:.1f} of {free:.1f} GiB ({budget}) · {time}",
        "可以运行{tier}：{peak:.1f} / {free:.1f} GiB（{budget}）· {time}",
    ),
    "fits_not": (
        "does not fit: {peak:.1f} GiB, of {free:.1f} GiB ({budget}); {advice}",
        "放不下：需 {peak:.1f} GiB，仅有 {free:.1f} GiB（{budget}）；{advice}",
    ),
    "on_tier": (" on tier {tier}", "（第 {tier} 档）"),
    "about_time": ("about {time}", "约 {time}"),
    "time_unknown": ("time unknown yet", "用时未知"),
    # the strip
    "latest": ("Latest clips", "最近的片段"),
    "strip_help": ("click: restore its settings; Shift or Ctrl: choose several", "单击：恢复参数；Shift 或 Ctrl：选择"),
    "empty": ("No clip was made yet.", "还没有片段。"),
    "compare": ("Play {count} in step", "同步播放 {count} 个"),
    "compare_two": ("Choose two to play them in step", "选择两个以同步播放"),
    "compare_help": ("Side by side, by one clock", "并排、同一时钟播放"),
    "close": ("Close", "关闭"),
    "restored": ("The settings of {name} are restored.", "已恢复 {name} 的参数。"),
    "restored_without": (
        "The settings of {name} are restored, except the picture and the model:",
        "已恢复 {name} 的参数，图片与模型除外：",
    ),
    "drop_picture": ("Drop the picture that it was made from.", "请拖入生成它的原图。"),
    # the sweep
    "sweep_lead": (
        "Every combination of these values becomes a clip; the other settings are those on the left.",
        "以下取值的每种组合生成一个片段；其余参数取自左侧。",
    ),
    "axis": ("Which parameter", "参数"),
    "values_help": (
        "Values: 6, 9, 12 or 6..16 step 2 or 1..10 count 4; in a prompt WORD -> [OTHER, ...]",
        "取值：6, 9, 12 或 6..16 step 2 或 1..10 count 4；提示词用 词 -> [替换, ...]",
    ),
    "add_axis": ("Add an axis", "添加参数"),
    "add_axis_help": ("Another parameter to change", "再添加一个要变化的参数"),
    "remove_axis": ("Remove this axis", "移除此参数"),
    "sweep_name": ("Name", "名称"),
    "sweep_name_help": ("Names the folder of the sweep: letters, digits, - and _", "扫描文件夹的名称：字母、数字、- 和 _"),
    "run_sweep": ("Run the sweep", "运行扫描"),
    "run_sweep_help": ("Make the missing clips; the running clip is finished first", "生成缺少的片段；先完成正在生成的"),
    "stop_cell": ("Stop after this clip", "完成当前片段后停止"),
    "stop_cell_help": ("The running clip is finished; run the sweep again to continue", "当前片段会完成；再次运行可继续"),
    "play_grid": ("Play in step", "同步播放"),
    "base_wrong": ("One of the settings on the left is wrong; see the note there.", "左侧参数有误，请先修正。"),
    "cells_done": ("{done} of {cells} done", "{cells} 个中完成 {done} 个"),
    "cells_failed": (", {failed} without a clip", "，{failed} 个无片段"),
    "plan": ("{cells} clips: {told}", "{cells} 个片段：{told}"),
    "plan_time": ("; about {time} and {size:.3g} MB for the clips to run", "；待运行部分约需 {time}、{size:.3g} MB"),
    "plan_unknown": ("; nothing was measured here yet, so the time is not known", "；尚无实测，时间未知"),
}

FIELDS_ZH = {  # field: (label, help, placeholder)
    "model": ("模型", "closed-form、i2vgen-xl、检查点文件夹或 hub id", ""),
    "image": ("图片", "输入图片：文件路径，或随附照片，如 sample:coffee", "路径，或 sample:coffee"),
    "prompt": ("提示词", "片段中应发生什么", "片段中应发生什么，例如：镜头向左平移"),
    "negative_prompt": ("反向提示词", "不应发生什么；通过引导起作用", "不应发生什么"),
    "resolution": ("分辨率", "片段尺寸：256p、512p、768p、1024p（正方形）或 高x宽", ""),
    "num_frames": ("帧数", "片段长度", ""),
    "fps": ("播放帧率", "文件的播放帧率；可精确写作 24000/1001", ""),
    "condition_fps": ("条件帧率", "告诉网络的帧率（diffusers 的 target_fps）；不是播放帧率", ""),
    "num_inference_steps": ("推理步数", "去噪步数", ""),
    "guidance_scale": ("引导强度", "提示词的牵引力度；不大于 1 时无引导，每步只算一次", ""),
    "seed": ("种子", "决定一切随机因素", ""),
    "scheduler": ("调度器", "每一步如何去噪", ""),
    "dtype": ("数值格式", "网络的数值格式；auto：CUDA 上为 float16，否则 float32", ""),
}
LABELS_EN = {"image": "Picture", "fps": "Playback fps", "dtype": "Number format"}  # where the name alone says too little
PLACEHOLDERS_EN = {
    "image": "path, or sample:coffee",
    "prompt": "what should happen, such as: camera panning left slowly",
    "negative_prompt": "what should not happen",
}
UNITS_IN_LABELS = {
    "frames/s": ("fps", "帧率"),
    "frames": ("frames", "帧"),
    "steps": ("steps", "步"),
    "px": ("resolution", "分辨率"),
}  # the part of a label that says the unit already
UNITS_ZH = {"frames": "帧", "frames/s": "帧/秒", "steps": "步", "px": "像素"}

# Messages of other modules, by their code. Of an advice: the whole line.
MESSAGES_ZH = {
    "motion.unknown": "没有可识别的运动词：将随机选取一种运动；请写出一种运动，例如：camera panning left、zoom in、镜头向左平移",
    "motion.empty": "为空：将随机选取一种运动；请写出一种运动，例如：camera panning left、zoom in、镜头向左平移",
    "guidance.high": "{value} 高于 16：颜色和形状会失真；建议 9",
    "guidance.low": "{value} 低于 6：片段几乎不跟随提示词；建议 9",
    "fps.low": "{value} 低于 6：片段会卡顿；建议 8",
    "fps.high": "{value} 高于 12：片段更短，每秒占用更多字节；建议 8",
    "actions.many": "约 {count} 个动作：超过三个会使模型混乱；请写一到三个",
    "steps.few": "{value} 低于 50：DDIM 会留下噪声和拖影；请用 50 步或更多",
    "frames.many": "{value} 高于 16：运动会在结尾减弱；请用 16 帧",
    "prompt.empty": "为空：运动全凭随机；请写出片段中应发生什么",
    "picture.enlarged": "{width}x{height} 像素放大了 {times} 倍：片段不会比图片更清晰；请用更大的图片或更小的分辨率",
    "picture.blurred": "模糊：图片模糊则片段模糊；请用更清晰的图片",
    "picture.not_found": "{name}：没有这个文件；请检查路径，或用 sample:coffee",
    "device.taken": "正在等待进程 {pid}（{name}）释放 {device}",
    "device.taken_unknown": "正在等待 {device} 空出",
    "plan.nearest": "可行的最接近设置：{settings}",
    "plan.none": "更小的也放不下；请换设备或关闭其他程序",
    "resolution": "应为 256p、512p、768p、1024p 或 高x宽（如 704x1280），得到 {input}",
    "resolution.sides": "边长应为 {low} 到 {high} 像素，得到 {input}",
    # of pydantic
    "greater_than_equal": "应不小于 {ge}，得到 {input}",
    "less_than_equal": "应不大于 {le}，得到 {input}",
    **dict.fromkeys(
        ("int_parsing", "int_type", "int_from_float", "float_parsing", "float_type", "finite_number"), "应为数字，得到 {input}"
    ),
}
# Texts without a code: reasons that a record keeps, and the name of a budget.
LINES_ZH = {
    STOPPED_BY_HAND: "手动停止",
    PROCESS_ENDED: "进程在片段完成前结束",
    DIED: "工作进程在片段完成前结束（被终止或内存不足）",
    "free RAM": "可用内存",
}


class Strings:
    """The texts of one language: `strings("generate")`."""

    def __init__(self, lang: str = "en") -> None:
        if lang not in LANGUAGES:
            raise InputError(f"lang: expected {' or '.join(LANGUAGES)}, got {lang!r}")
        self.lang = lang
        self._column = LANGUAGES.index(lang)

    def __call__(self, key: str) -> str:
        return TEXTS[key][self._column]

    def some(self, *keys: str) -> dict[str, str]:
        """{key: text}, as a page takes it."""
        return {key: self(key) for key in keys}

    def states(self) -> dict[str, str]:
        """The texts for the states of a run or a cell."""
        return self.some("done", "failed", "out_of_memory", "stopped", "running", "planned", "gone", "to_do", "cannot_run")

    def label(self, field: str) -> str:
        """What a field of ClipParams is called."""
        if self.lang == "zh" and field in FIELDS_ZH:
            return FIELDS_ZH[field][0]
        return LABELS_EN.get(field) or field.removeprefix("num_").replace("_", " ").capitalize()

    def help(self, field: str, english: str) -> str:
        """Its help, with its name in the code."""
        return f"{field}: {FIELDS_ZH[field][1] if self.lang == 'zh' and field in FIELDS_ZH else english}"

    def placeholder(self, field: str) -> str:
        return FIELDS_ZH[field][2] if self.lang == "zh" and field in FIELDS_ZH else PLACEHOLDERS_EN.get(field, "")

    def unit(self, unit: str, field: str) -> str:
        """The unit of a field; "" where it has none, or its label says it."""
        in_label = UNITS_IN_LABELS.get(unit, (unit, unit))[self._column]
        shown = UNITS_ZH.get(unit, unit) if self.lang == "zh" else unit
        return "" if in_label in self.label(field).lower() else shown

    def values(self, field: str) -> str:
        """An example of values for an axis."""
        examples = {
            "prompt": "left -> [right, up]", "negative_prompt": "blur -> [noise]", "resolution": "256p, 512p", "scheduler": "ddim, euler",
            "dtype": "float32, float16", "model": "closed-form", "image": "sample:coffee, sample:cat", "num_frames": "8, 16",
            "guidance_scale": "4..14 step 5", "seed": "0..3 step 1", "num_inference_steps": "10, 25, 50",
        }  # fmt: skip
        return examples.get(field, "8, 16")

    def stage(self, name: str) -> str:
        return self(f"stage_{name}") if f"stage_{name}" in TEXTS else name

    def preset(self, name: str) -> str:
        return self(f"preset_{name}") if f"preset_{name}" in TEXTS else name

    def sample(self, name: str) -> str:
        return self(f"sample_{name}") if f"sample_{name}" in TEXTS else name

    def say(self, message: str) -> str:
        """A message of another module, or a reason in a record."""
        if self.lang == "en":
            return message
        template = MESSAGES_ZH.get(getattr(message, "code", ""))
        return template.format(**message.values) if template else LINES_ZH.get(message, message)  # type: ignore[attr-defined]

    def advice(self, advice: Advice) -> str:
        """What is wrong, what will come of it, and what to do."""
        translated = self.say(advice.what)
        return translated if translated != advice.what else f"{advice.what}: {advice.why}; {advice.remedy}"

    def plan(self, counts: dict[str, int], cells: int, seconds: float | None, size: float | None) -> str:
        """The plan of a sweep in a line."""
        counted = ", ".join(f"{count} {self(state.replace(' ', '_'))}" for state, count in counts.items())
        line = self("plan").format(cells=cells, told=counted)
        if not counts.keys() - {"done"}:
            return line
        if seconds is None or size is None:
            return line + self("plan_unknown")
        return line + self("plan_time").format(time=duration(seconds), size=size / 1e6)

    def forecast(self, plan: Any) -> str:
        """What the planner expects of a clip, in a line."""
        known = {"peak": plan.peak_gib, "free": plan.free_gib, "budget": self.say(plan.budget.name)}
        if not plan.fits:
            return self("fits_not").format(**known, advice=self.say(plan.advice()))
        time = self("time_unknown") if plan.seconds is None else self("about_time").format(time=duration(plan.seconds))
        return self("fits").format(**known, time=time, tier=self("on_tier").format(tier=plan.tier) if plan.tier else "")
