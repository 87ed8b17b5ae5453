"""The commonest words of some languages, which carry grammar and so are in every text of theirs."""

FUNCTION_WORDS = {
    "en": "the of and to in a is that it was for with as his he be on by at i not which but from or had "
    "this have her they you are were she an their all we my him me so there been one no them who "
    "would if when",
    "de": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an "
    "werden aus er hat dass sie nach wird bei einer um am sind noch wie einem über so zum war haben "
    "nur oder aber ich",
    "fr": "de la le et les des en un du une que est pour qui dans a par plus pas au sur ne se ce il sont "
    "avec ou son aux cette ont ses mais comme on tout nous sa fait été leur elle vous je même ces d "
    "l qu n s c j",
    "es": "de la que el en y a los se del las un por con no una su para es al lo como más o pero sus le "
    "ha me si sin sobre este ya entre cuando todo esta ser son dos también fue había era muy hasta "
    "desde mi",
    "it": "di e il la che in a per un è del non una i le con si da al sono come più dei nel alla ma su "
    "anche della gli ha lo o delle se ci questo mi era suo essere cui ne dal dell l d c un",
    "pt": "de a o que e do da em um para é com não uma os no se na por mais as dos como mas foi ao ele "
    "das tem à seu sua ou ser quando muito há nos já está eu também só pelo pela até isso",
    "nl": "de en van het een in is dat op te zijn met voor niet aan er om ook als dan maar bij nog uit "
    "naar door over ze zich hij heeft hebben deze wordt werd dit was kan meer geen ik je we of die",
}
"""By ISO 639 code."""

FUNCTION_CHARACTERS = "的了是在不和有我这个们为以于与也就而及或其之等对由并到把被从向但如则所能会可要上下中"
"""Characters of Chinese that carry grammar, from speech to statutes."""
