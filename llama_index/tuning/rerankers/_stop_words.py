"""The commonest function words of some languages, without content of their own."""

from __future__ import annotations

STOP_WORDS = {
    "english": (
        "a an the this that these those and or but nor if then than so as of at by for with about "
        "into from to in on off over under is am are was were be been being do does did done have "
        "has had having it its he she they them his her their our your my we you i me us him who "
        "whom whose which what when where why how can could will would shall should may might "
        "must not no there here also any some such"
    ),
    "german": (
        "der die das den dem des ein eine einer eines einem einen und oder aber wenn dann als so "
        "wie von vom bei für mit über in im ins an am auf aus zu zum zur nach durch ist sind war "
        "waren sein wird werden wurde wurden hat haben hatte hatten es er sie wir ihr ich du mich "
        "mir dich dir ihm ihn ihnen uns euch wer wen wem was wann wo warum wieso welche welcher "
        "welches kann können soll sollen muss müssen nicht kein keine auch noch dass daß sich"
    ),
    "french": (
        "le la les l un une des du de d et ou mais si que qu qui quoi dont où quand comment "
        "pourquoi quel quelle quels quelles à au aux en dans par pour sur sous avec sans est sont "
        "était étaient être été a ont avait avoir il elle ils elles on nous vous je tu me te se "
        "ce cet cette ces son sa ses leur leurs mon ma mes ton ta tes notre votre ne pas plus y c s"
    ),
    "spanish": (
        "el la los las un una unos unas lo de del al a en por para con sin sobre y e o u pero si "
        "que qué quien quién cual cuál cuando cuándo donde dónde como cómo es son era eran ser "
        "sido está están ha han había haber se su sus mi mis tu tus nos le les me te yo él ella "
        "ellos ellas no más este esta estos estas ese esa eso"
    ),
    "italian": (
        "il lo la i gli le l un uno una di del dello della dei degli delle a al alla ai alle da "
        "dal dalla in nel nella con su sul sulla per tra fra e ed o ma se che chi cui quale quali "
        "quando dove come perché è sono era erano essere stato ha hanno aveva avere si suo sua "
        "suoi sue mio mia non più questo questa questi queste io tu lui lei noi voi loro"
    ),
    "portuguese": (
        "o a os as um uma uns umas de do da dos das em no na nos nas por pelo pela para com sem "
        "sobre e ou mas se que quem qual quais quando onde como é são era eram ser foi está estão "
        "tem têm tinha ter ao à aos às seu sua seus suas meu minha não mais este esta isto esse "
        "essa isso eu tu ele ela nós eles elas"
    ),
    "dutch": (
        "de het een en of maar als dan zo van bij voor met over in op aan uit naar door om te tot "
        "is zijn was waren ben bent wordt worden werd heeft hebben had hij zij ze wij we jij je u "
        "ik mij me hem haar hun ons wie wat welke wanneer waar waarom hoe kan kunnen zal zullen "
        "moet moeten niet geen ook dat die dit deze er"
    ),
    "arabic": (
        "في من على إلى الى عن مع هذا هذه ذلك تلك هو هي هم هن نحن أنا أنت كان كانت يكون تكون ما "
        "ماذا متى أين كيف لماذا هل أي التي الذي الذين أن ان إن لا لم لن قد و أو ثم بين كل بعد قبل"
    ),
    "russian": (
        "и в во не что он на я с со как а то все она так его но да ты к у же вы за бы по только ее "
        "мне было вот от меня о из ему кто где когда почему какой какая какие это эта этот эти для "
        "мы их чем была были быть есть при до или ни"
    ),
}
