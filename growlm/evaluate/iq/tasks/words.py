"""Words and characters that generators draw from; what is made of them means nothing."""

from __future__ import annotations

CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SMALL = "abcdefghijklmnopqrstuvwxyz"
LETTERS = "abcdefghijABCDEFGHIJ"
"""Of pattern mining, as in the paper's example shapes."""
CHARACTERS = "山川风云雨雪日月星光水火木金土石花草树鸟"
"""The same in Chinese."""

_EN = (
    "apple bridge candle desert engine forest garden hammer island jacket kitchen ladder mirror needle "
    "orange pencil quiet river silver table under village window yellow after before between carries "
    "slowly often never always small large green broken gentle early morning evening station market "
    "teacher doctor letter paper music winter summer stone water bread horse follows opens watches finds "
    "near behind with from into"
)
_ZH = (
    "苹果 桥梁 蜡烛 沙漠 机器 森林 花园 锤子 岛屿 外套 厨房 梯子 镜子 橘子 铅笔 安静 河流 桌子 村庄 窗户 "
    "黄色 以后 以前 中间 慢慢 经常 从来 总是 绿色 温和 早晨 傍晚 车站 市场 老师 医生 信件 音乐 冬天 夏天 "
    "石头 面包 打开 看见 找到 附近 后面 一起 进入 继续"
)
ENGLISH, CHINESE = _EN.split(), _ZH.split()
NAMES = "甄璟翊骞彧晟煜钰瑄珩霖霁琛瑾"
"""Characters that are in none of the Chinese words."""
